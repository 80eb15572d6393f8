"""The schema: which columns a joint row has, where each of them lies, and which rows of other versions fit it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from rllib_maddpg.rows.layout import JointLayout

# Of the built-in columns. Rows of version 1 have no description, and the columns of `_SINCE_1` only.
VERSION = 2
PER = ("obs", "actions", "agents", "env")
DTYPES = ("float32", "int32", "uint8")
# Name of a column's value at x'.
NEXT = "new_"


@dataclass(frozen=True)
class Column:
    """One column of a joint row.

    Attributes:
        name: Its name.
        per: What it describes: an agent's "obs" or "actions" (as many numbers as its observation or its action code has),
            "agents" (`width` numbers for each) or "env" (`width` numbers for the row).
        width: Numbers for each agent or for the row.
        dtype: "float32", "int32" or "uint8".
        fill: Its value in rows in which nobody has written it, such as those of a checkpoint that has no such column.
        finite: Whether rows in which it is NaN or infinite are refused.
        at_next: Whether there is a column `new_<name>`, too, with its value at x'.
        source: For users' columns: function of the infos by agent, `{agent: info}`, that `reset` and each `step` give. It
            returns numbers `[width]` (per "env"), `[N, width]` (per "agents", in layout order: by module id, then agent id),
            or those of all agents side by side. The value at x is that of the infos that came with x.
        stored: Whether replay buffers keep it. Else it is made when rows are drawn, and is no column of sampled rows.
    """

    name: str
    per: str
    width: int = 1
    dtype: str = "float32"
    fill: float = 0.0
    finite: bool = True
    at_next: bool = False
    source: Callable[[Mapping[Any, Any]], Any] | None = None
    stored: bool = True


_SINCE_1 = (
    # The first two lie side by side, because they are what critics see.
    Column("obs", "obs"),
    Column("actions", "actions"),
    Column("rewards", "agents"),
    Column(f"{NEXT}obs", "obs"),
    Column("terminateds", "agents"),
    Column("alive", "agents"),
    Column("next_alive", "agents"),
)
BUILT_IN = (
    *_SINCE_1,
    Column("truncateds", "agents"),
    Column("episodes", "env", dtype="int32", fill=-1),
    Column("t", "env", dtype="int32", fill=-1),
)
# Which of them are images, where agents observe such.
OBSERVATIONS = ("obs", f"{NEXT}obs")
# Who is in the game is one thing, and who acts is another. Where all in the game act at every step they are one column; rows of
# games of turns have columns of these names (`rows/turns.py`).
ALIASES = {"acts": "alive", "acted": "alive", "next_acts": "next_alive"}
# Rows whose x' nothing that is kept repeats, such as the last one of an episode: how many of 100 are counted when memory is
# asked for in advance. They are so many where episodes, or the lives of agents, have ten steps.
ALONE_PERCENT = 10
# Bytes of the links by which a row of images finds its x', on the host and on the ring's device.
_LINKS = 8


class Place(NamedTuple):
    """Where a column lies in a row of 4-byte words: `words` of them from `start`, that hold `size` numbers of a type."""

    name: str
    start: int
    words: int
    size: int
    dtype: str


class RowSchema:
    """The columns of a joint row, which is one row of float32 words.

    Columns of floats lie in it as they are, in this order: those that must be finite, those that need not. Then come those
    of int32 and uint8, whose bits are kept in words: such words are copied, but no number is to be made of them. What is not
    stored comes last.

    Where all agents observe images of bytes (`JointLayout.observes_bytes`), `obs` and `new_obs` have a byte for each number and
    lie in this order behind all others that are stored. Replay buffers keep such rows without `new_obs`, which is nearly always
    the `obs` of another row. All other observations, also images of a team that has others, too, are floats.

    Attributes:
        layout: Order of agents in a row.
        extra: The users' columns, as they gave them.
        own: Columns that settings ask for.
        columns: By name, in the order of the row; `new_<name>` is a column of its own.
        places: Where each of them lies.
        aliases: Other names of columns: those of `ALIASES` that are no columns themselves.
        row_width: Words of a row.
        finite_width: Words of a row that must be finite; the first ones.
        observes_bytes: As of the layout.
    """

    version = VERSION
    observes_bytes = False  # of schemas that earlier versions have pickled

    def __init__(self, layout: JointLayout, extra: Iterable[Column] = (), own: Iterable[Column] = ()):
        """
        Args:
            layout: Order of agents in a row.
            extra: Users' columns beside the built-in ones.
            own: Those that settings ask for.
        """
        self.layout, self.extra, self.own = layout, tuple(extra), tuple(own)
        beside = (*self.extra, *self.own)
        self.observes_bytes = layout.observes_bytes
        self.columns = {column.name: column for column in sorted(with_next(beside, self.observes_bytes), key=_rank)}
        self.aliases = {alias: name for alias, name in ALIASES.items() if alias not in self.columns}
        self.places = _places(self.columns.values(), _sizes(layout.obs_dim, layout.action_dim, len(layout)))
        self.row_width = sum(place.words for place in self.places)
        self.finite_width = sum(p.words for p, c in zip(self.places, self.columns.values(), strict=True) if not _rank(c))
        self._by_name = {place.name: place for place in self.places}

    @cached_property
    def stored(self) -> RowSchema:
        """Of the rows that are sampled and kept: without what is made when they are drawn."""
        kept = [column for column in self.own if column.stored]
        return self if len(kept) == len(self.own) else RowSchema(self.layout, self.extra, kept)

    def __contains__(self, name: str) -> bool:
        return self.real_name(name) in self.columns

    def real_name(self, name: str) -> str:
        """The name of the column that a name, which may be an alias, stands for."""
        return self.aliases.get(name, name)

    def column(self, name: str) -> Column:
        """The column of a name, which may be an alias."""
        return self.columns[self.real_name(name)]

    def width(self, name: str) -> int:
        """Numbers of a column in one row, of all agents together."""
        return self._by_name[self.real_name(name)].size

    def width_of_one(self, name: str, module: str) -> int:
        """Numbers of a column in one row for a single agent of a module; all of those that belong to the env."""
        column, layout = self.column(name), self.layout
        each = {"obs": layout.obs_dim_of(module), "actions": layout.codec_of(module).dim, "agents": 1, "env": 1}
        return each[column.per] * int(column.width)

    @cached_property
    def kept(self) -> tuple[Place, ...]:
        """The columns of a row that lie in the ring of a replay buffer, which are the first ones of those that are stored."""
        return tuple(_kept(self.stored.places, self.observes_bytes))

    @property
    def kept_width(self) -> int:
        """Words of these."""
        return sum(place.words for place in self.kept)

    @property
    def bytes_per_row(self) -> int:
        """Bytes of one row."""
        return 4 * self.row_width

    @property
    def alone_percent(self) -> int:
        """Of rows of images, how many of 100 are counted with an x' that no other row repeats."""
        return _alone_percent(self.columns)

    @property
    def bytes_per_kept_row(self) -> int:
        """Bytes that a replay buffer needs for each row that it keeps, as the function `bytes_per_kept_row` counts them."""
        return _bytes_kept(self.stored.places, self.observes_bytes)

    def split(self, rows: Any) -> dict[str, Any]:
        """The columns of whole rows `[..., row_width]`, array or tensor, as views `[..., width]` of their own types."""
        return views(rows, self.places)

    def empty(self, *shape: int) -> np.ndarray:
        """Rows `[*shape, row_width]` in which every column has its `fill`."""
        rows = np.zeros((*shape, self.row_width), np.float32)
        columns = self.split(rows)
        for name, column in self.columns.items():
            if column.fill:
                columns[name][:] = column.fill
        return rows

    def owner(self, name: str, at: int) -> Any:
        """The agent to which number `at` of a column belongs; None: to the env."""
        column = self.column(name)
        if column.per == "env":
            return None
        if column.per == "agents":
            return self.layout.agents[at // column.width]
        return next(s.agent for s in self.layout.slots if getattr(s, column.per).start <= at < getattr(s, column.per).stop)

    def description(self) -> dict[str, Any]:
        """Plain data that goes with rows into checkpoints: the version, and per column what `check_same` compares."""
        return {"version": self.version, "columns": {name: _kind(column) for name, column in self.columns.items()}}

    def check_same(self, other: Mapping[str, Any] | None, what: str) -> None:
        """Refuses rows that have something for which there is no place here; columns that they lack can be filled.

        Args:
            other: `description()` of those rows; None: they are of version 1.
            what: What they belong to, for the message.

        Raises:
            ValueError: Naming version or column.
        """
        version, columns = described(other)
        if not isinstance(version, int) or version > VERSION:
            raise ValueError(
                f"{what} has joint rows of version {version!r}, made by a newer rllib_maddpg; this one reads versions up to "
                f"{VERSION}. Install the newer one, or train again."
            )
        for name, kind in columns.items():
            if name not in self.columns:
                raise ValueError(
                    f"{what} has a column {name!r}, which this run has not. Give it the `extra_columns` that it was made with, "
                    "or the settings that ask for such a column, such as `num_sub_policies`."
                )
            if kind != _kind(self.columns[name]):
                raise ValueError(
                    f"Column {name!r} of {what[0].lower() + what[1:]} is {kind}, and here {_kind(self.columns[name])}. Use the "
                    "`extra_columns` that it was made with."
                )


def described(description: Mapping[str, Any] | None) -> tuple[int, Mapping[str, Any]]:
    """Version of rows, and kind of each of their columns by name; None stands for rows of version 1."""
    if description is None:
        return 1, {column.name: _kind(column) for column in _SINCE_1}
    return description["version"], description["columns"]


def with_next(extra: Iterable[Column] = (), observes_bytes: bool = False) -> list[Column]:
    """The built-in columns and others, each followed by its value at x' where there is one.

    Args:
        extra: The others.
        observes_bytes: Whether all agents observe images of bytes.
    """
    columns = [replace(c, dtype="uint8") if observes_bytes and c.name in OBSERVATIONS else c for c in BUILT_IN]
    for column in extra:
        columns.append(column)
        if column.at_next:
            columns.append(replace(column, name=NEXT + column.name, at_next=False, source=None))
    return columns


def bytes_per_kept_row(
    obs_dim: int, action_dim: int, num_agents: int, extra: Iterable[Column] = (), observes_bytes: bool = False
) -> int:
    """Bytes that a replay buffer needs for each row that it keeps, before there is a layout.

    Of images of bytes each is counted once, and `ALONE_PERCENT` of them twice, in games of turns all: those that no other row
    repeats.

    Args:
        obs_dim: Numbers in the observations of all agents.
        action_dim: Numbers in the action codes of all agents.
        num_agents: N.
        extra: Columns beside the built-in ones.
        observes_bytes: Whether all agents observe images of bytes.
    """
    columns = sorted(with_next(extra, observes_bytes), key=_rank)
    return _bytes_kept(_places(columns, _sizes(obs_dim, action_dim, num_agents)), observes_bytes)


def views(rows: Any, places: Sequence[Place]) -> dict[str, Any]:
    """Per column its part of rows `[..., row_width]`, array or tensor, as a view `[..., size]` of its own type."""
    if isinstance(rows, torch.Tensor):
        types, parts = torch, rows.split([place.words for place in places], -1)  # quicker than one by one
    else:
        types, parts = np, [rows[..., place.start : place.start + place.words] for place in places]
    return {
        place.name: part if place.dtype == "float32" else part.view(getattr(types, place.dtype))[..., : place.size]
        for place, part in zip(places, parts, strict=True)
    }


def _sizes(obs_dim: int, action_dim: int, num_agents: int) -> dict[str, int]:
    """Numbers in a row of a column of width 1, by what it describes."""
    return {"obs": obs_dim, "actions": action_dim, "agents": num_agents, "env": 1}


def _places(columns: Iterable[Column], sizes: Mapping[str, int]) -> tuple[Place, ...]:
    places, start = [], 0
    for column in columns:
        size = sizes[column.per] * int(column.width)
        words = math.ceil(size * np.dtype(column.dtype).itemsize / 4)
        places.append(Place(column.name, start, words, size, column.dtype))
        start += words
    return tuple(places)


def _kept(places: Sequence[Place], once: bool) -> Sequence[Place]:
    """Those of stored columns that lie in a ring."""
    return places[:-1] if once else places  # `new_obs` is the last one


def _bytes_kept(places: Sequence[Place], once: bool) -> int:
    beside = math.ceil(places[-1].words * _alone_percent(place.name for place in places) / 100) * 4 + _LINKS if once else 0
    return 4 * sum(place.words for place in _kept(places, once)) + beside


def _alone_percent(names: Iterable[str]) -> int:
    # In games of turns what an agent sees next comes some rows later.
    return ALONE_PERCENT if ALIASES.keys().isdisjoint(names) else 100


def _rank(column: Column) -> int:
    """Columns of the same kind lie side by side; 0: those that must be finite."""
    if not column.stored:
        return len(DTYPES) + 1 + len(OBSERVATIONS)
    if column.name in OBSERVATIONS and column.dtype == "uint8":
        return len(DTYPES) + 1 + OBSERVATIONS.index(column.name)
    return DTYPES.index(column.dtype) + (column.dtype != "float32" or not column.finite)


def _kind(column: Column) -> dict[str, Any]:
    return {"per": column.per, "width": int(column.width), "dtype": column.dtype}
