"""A batch of joint rows as tensors: what the replay buffer draws and the equations are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.schema import OBSERVATIONS, RowSchema


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
        schema: The columns of a row; None on the way to another process.
        joint_rows: All columns side by side in the order of the schema, `[B, row_width]`: one tensor to draw, to send and to
            move to a device.
        newest: The newest rows, where an update needs them beside these.
        raw: The same rows as they were drawn; these themselves, if nobody has normalized them.
        for_actors: The same rows as actors see them; these themselves, unless some actor keeps other means than all others.
    """

    def __init__(self, schema: RowSchema | None, joint_rows: Tensor):
        self.schema = schema
        self.joint_rows = joint_rows
        self.newest: JointBatch | None = None
        self._raw: JointBatch | None = None
        self._for_actors: JointBatch | None = None
        self._stacked: dict[tuple, Tensor] = {}

    @classmethod
    def from_modules(cls, schema: RowSchema, modules: Mapping[str, Mapping[str, Any]]) -> JointBatch:
        """Joins columns that are split by module: `[B, n, dim]` or `[B, n]` for the n agents of each module.

        What belongs to the env may stand with any module. Columns that no module has get their `fill`. Rows are as precise as
        the observations, unless these are images of bytes; in others than float32 there is no place for columns of whole
        numbers.
        """
        given = {
            name: [torch.as_tensor(modules[m][name]).flatten(1) for m in schema.layout.modules if name in modules[m]]
            for name in schema.columns
        }
        obs = given["obs"][0]
        rows = torch.from_numpy(schema.empty(len(obs)))
        rows = rows if schema.observes_bytes else rows.to(obs.dtype)
        for name, values in schema.split(rows).items():
            parts = given[name]
            if parts:
                values[:] = parts[0] if schema.columns[name].per == "env" else torch.cat(parts, -1)
        return cls(schema, rows)

    @property
    def layout(self) -> JointLayout:
        """Order of agents in a row."""
        return self.schema.layout

    @property
    def obs_and_actions(self) -> Tensor:
        """x and a side by side, `[B, obs_dim + code_dim of all agents]`: as they lie in the row, unless x is bytes."""
        if self.schema.observes_bytes:
            return torch.cat([self.columns["obs"], self.columns["actions"]], -1)
        return self.joint_rows[..., : self.layout.obs_dim + self.layout.action_dim]

    @property
    def raw(self) -> JointBatch:
        """The rows as they were drawn."""
        # Not `self` in an attribute: such circles wait for Python to collect its garbage.
        return self if self._raw is None else self._raw

    @raw.setter
    def raw(self, batch: JointBatch) -> None:
        self._raw = batch

    @property
    def for_actors(self) -> JointBatch:
        """The rows as actors see them."""
        return self if self._for_actors is None else self._for_actors

    @for_actors.setter
    def for_actors(self, batch: JointBatch) -> None:
        self._for_actors = batch

    def __len__(self) -> int:
        return len(self.joint_rows)

    def __getstate__(self) -> dict[str, Any]:
        # Rows travel to remote Learners as an array, which Ray sends without a copy, and without the schema, which they have.
        return {"joint_rows": self.joint_rows.cpu().numpy(), "newest": self.newest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Ray's arrays are read-only, which torch does not know.
        self.__init__(None, torch.tensor(state["joint_rows"]))
        self.newest = state["newest"]

    def to(self, device: torch.device, schema: RowSchema) -> JointBatch:
        """The same rows on a device."""
        batch = JointBatch(schema, self.joint_rows.to(device))
        batch.newest = None if self.newest is None else self.newest.to(device, schema)
        return batch

    def rows(self, rows: slice) -> JointBatch:
        """Some of the rows, as views; the newest are the same."""
        batch = JointBatch(self.schema, self.joint_rows[rows])
        batch.newest = self.newest
        batch._raw, batch._for_actors = (None if own is None else own.rows(rows) for own in (self._raw, self._for_actors))
        return batch

    def with_rows(self, rows: Tensor) -> JointBatch:
        """Other rows of the same kind, without newest ones."""
        return JointBatch(self.schema, rows)

    def shards(self, num_shards: int, rows: int) -> list[JointBatch]:
        """Parts for several Learners: of each `num_shards * rows` rows in turn shard k gets the k-th `rows`."""
        parts = self.joint_rows.unflatten(0, (-1, num_shards, rows))
        return [JointBatch(self.schema, parts[:, k].flatten(0, 1)) for k in range(num_shards)]

    @lazy
    def columns(self) -> dict[str, Tensor]:
        """Per column of the schema, and under its aliases, a view `[B, width]`, the numbers of all agents side by side.

        Observations that are bytes in the row are made float32 numbers 0 ... 255, once, when the first column is asked for.
        """
        columns = self.schema.split(self.joint_rows)
        if self.schema.observes_bytes:
            columns |= {name: columns[name].float() for name in OBSERVATIONS}
        return columns | {alias: columns[name] for alias, name in self.schema.aliases.items()}

    @lazy
    def modules(self) -> dict[str, Mapping[str, Tensor]]:
        """Per module its share of each column, as views made when they are asked for.

        `[B, n, dim]` for its n agents, or `[B, n]` where there is one number per agent; what belongs to the env, whole.
        """
        return {m: _Shares(self, m) for m in self.layout.modules}

    def stack(self, modules: Sequence[str], column: str) -> Tensor:
        """The column of G modules of n agents each: `[G, n, B, dim]`, or `[G, n, B]` where there is one number per agent.

        What belongs to the env, `[B, dim]`, is the same for all of them.
        """
        column = self.schema.real_name(column)
        key = (modules, column)
        if key not in self._stacked:
            kind, values = self.schema.columns[column], self.columns[column]
            if kind.per == "env":
                agents = len(self.layout.slots_of(modules[0]))
                self._stacked[key] = values.expand(len(modules), agents, *values.shape)
            else:
                self._stacked[key] = self.layout.stack(values, modules, kind.per, kind.width)
        return self._stacked[key]

    def allowed(self, modules: Sequence[str], column: str) -> Tensor | None:
        """Which actions the observations of G modules of n agents each allow: bool `[G, n, B, code_dim]`.

        Args:
            modules: Whose agents have their masks in the same place.
            column: "obs" or "new_obs".

        Returns:
            None: All are, always.
        """
        slot = self.layout.slots_of(modules[0])[0]
        return None if slot.mask is None else slot.codec.allowed(self.stack(modules, column)[..., slot.mask])

    def sum_over_agents(self, values: Tensor) -> Tensor:
        """Numbers of the agents of some modules, `[G, n, B]` -> `[B]`."""
        return values.sum((0, 1))

    def max_over_agents(self, values: Tensor) -> Tensor:
        """The largest of these numbers, `[G, n, B]` -> `[B]`."""
        return values.amax((0, 1))


class _Shares(Mapping):
    """A module's share of the columns of a batch."""

    def __init__(self, batch: JointBatch, module: str):
        self._batch, self._module = batch, module
        self._made: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._made:
            column, values = self._batch.schema.column(name), self._batch.columns[name]
            if column.per != "env":
                values = self._batch.layout.split(values, self._module, column.per, column.width)
            self._made[name] = values
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._batch.schema.columns)

    def __len__(self) -> int:
        return len(self._batch.schema.columns)
