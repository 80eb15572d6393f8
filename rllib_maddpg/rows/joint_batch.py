"""A batch of joint rows as tensors: what the replay buffer draws and the equations are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rllib_maddpg.rows.layout import JointLayout

# Every column of a joint row in order, with what it holds per agent: an observation, an action code, or one number. The first
# two lie side by side, because they are what critics see.
COLUMNS: dict[str, str] = {
    "obs": "obs",
    "actions": "actions",
    "rewards": "agents",
    "new_obs": "obs",
    "terminateds": "agents",
    "alive": "agents",
    "next_alive": "agents",
}


def column_width(layout: JointLayout, column: str) -> int:
    """Number of values that a column takes in one joint row."""
    return {"obs": layout.obs_dim, "actions": layout.action_dim, "agents": len(layout)}[COLUMNS[column]]


def column_widths(layout: JointLayout) -> tuple[int, ...]:
    """That of all columns, in order."""
    return tuple(column_width(layout, name) for name in COLUMNS)


def split_columns(layout: JointLayout, rows: Tensor) -> dict[str, Tensor]:
    """The columns of whole rows `[B, row_width]`, as views `[B, width]`."""
    return dict(zip(COLUMNS, rows.split(column_widths(layout), -1), strict=True))


class lazy:
    """`functools.cached_property` without its lock, which torch.compile cannot trace."""

    def __init__(self, make: Callable[[Any], Any]):
        self.make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        value = self.make(instance)
        setattr(instance, self.name, value)
        return value


class JointBatch:
    """B joint rows; agents in layout order.

    Attributes:
        layout: Order of agents in a row.
        joint_rows: All columns side by side in the order of `COLUMNS`, `[B, row_width]`: one tensor to draw, to send and to
            move to a device.
    """

    def __init__(self, layout: JointLayout | None, joint_rows: Tensor):
        self.layout = layout
        self.joint_rows = joint_rows
        self._stacked: dict[tuple, Tensor] = {}

    @classmethod
    def from_modules(cls, layout: JointLayout, modules: Mapping[str, Mapping[str, Any]]) -> JointBatch:
        """Joins columns that are split by module: `[B, n, dim]` or `[B, n]` for the n agents of each module."""
        parts = [torch.as_tensor(modules[m][name]).flatten(1) for name in COLUMNS for m in layout.modules]
        return cls(layout, torch.cat(parts, -1))

    def __len__(self) -> int:
        return len(self.joint_rows)

    def __getstate__(self) -> dict[str, Any]:
        # Rows travel to remote Learners as an array, which Ray sends without a copy, and without the layout, which they have.
        return {"layout": None, "joint_rows": self.joint_rows.cpu().numpy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Ray's arrays are read-only, which torch does not know.
        self.__init__(None, torch.tensor(state["joint_rows"]))

    def to(self, device: torch.device, layout: JointLayout) -> JointBatch:
        """The same rows on a device."""
        return JointBatch(layout, self.joint_rows.to(device))

    def rows(self, rows: slice) -> JointBatch:
        """Some of the rows, as views."""
        return JointBatch(self.layout, self.joint_rows[rows])

    def shards(self, num_shards: int, rows: int) -> list[JointBatch]:
        """Parts for several Learners: of each `num_shards * rows` rows in turn shard k gets the k-th `rows`."""
        parts = self.joint_rows.unflatten(0, (-1, num_shards, rows))
        return [JointBatch(self.layout, parts[:, k].flatten(0, 1)) for k in range(num_shards)]

    @lazy
    def columns(self) -> dict[str, Tensor]:
        """Per column of `COLUMNS` a view: obs, new_obs `[B, obs_dim of all agents]`, actions `[B, code_dim of all agents]`,
        rewards, terminateds, alive, next_alive `[B, N]`."""
        return split_columns(self.layout, self.joint_rows)

    @lazy
    def modules(self) -> dict[str, dict[str, Tensor]]:
        """Per module its share of each column, as views: `[B, n, dim]`, or `[B, n]` where there is one number per agent."""
        return {
            m: {name: self.layout.split(values, m, COLUMNS[name]) for name, values in self.columns.items()}
            for m in self.layout.modules
        }

    def stack(self, modules: Sequence[str], column: str) -> Tensor:
        """The column of G modules of n agents each: `[G, n, B, dim]`, or `[G, n, B]` where there is one number per agent."""
        key = (modules, column)
        if key not in self._stacked:
            self._stacked[key] = self.layout.stack(self.columns[column], modules, COLUMNS[column])
        return self._stacked[key]
