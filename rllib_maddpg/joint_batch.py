"""A batch of joint rows as tensors: what the replay buffer draws and the equations are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rllib_maddpg.layout import JointLayout

# Every column of a joint row, with what it holds per agent: an observation, an action code, or one number.
COLUMNS: dict[str, str] = {
    "obs": "obs",
    "actions": "actions",
    "rewards": "agents",
    "new_obs": "obs",
    "terminateds": "agents",
    "alive": "agents",
    "next_alive": "agents",
}


class JointBatch:
    """B joint rows; agents in layout order.

    Attributes:
        layout: Order of agents in a row.
        columns: Per column of `COLUMNS` a float tensor: obs, new_obs `[B, obs_dim of all agents]`, actions `[B, code_dim of all
            agents]`, rewards, terminateds, alive, next_alive `[B, N]`.
    """

    def __init__(self, layout: JointLayout | None, columns: Mapping[str, Tensor]):
        self.layout = layout
        self.columns = dict(columns)
        self._stacked: dict[tuple, Tensor] = {}

    @classmethod
    def from_modules(cls, layout: JointLayout, modules: Mapping[str, Mapping[str, Any]]) -> JointBatch:
        """Joins columns that are split by module: `[B, n, dim]` or `[B, n]` for the n agents of each module."""
        columns = {
            name: torch.cat([torch.as_tensor(modules[m][name]).flatten(1) for m in layout.modules], -1) for name in COLUMNS
        }
        return cls(layout, columns)

    def __len__(self) -> int:
        return len(self.columns["rewards"])

    def __getstate__(self) -> dict[str, Any]:
        # Rows travel to remote Learners as arrays, which Ray sends without a copy, and without the layout, which they have.
        return {"layout": None, "columns": {name: values.cpu().numpy() for name, values in self.columns.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Ray's arrays are read-only, which torch does not know.
        self.__init__(None, {name: torch.tensor(values) for name, values in state["columns"].items()})

    def to(self, device: torch.device, layout: JointLayout) -> JointBatch:
        """The same rows on a device."""
        return JointBatch(layout, {name: values.to(device) for name, values in self.columns.items()})

    def rows(self, rows: slice) -> JointBatch:
        """Some of the rows, as views."""
        return JointBatch(self.layout, {name: values[rows] for name, values in self.columns.items()})

    def shards(self, num_shards: int, rows: int) -> list[JointBatch]:
        """Parts for several Learners: of each `num_shards * rows` rows in turn shard k gets the k-th `rows`."""
        parts = {name: values.unflatten(0, (-1, num_shards, rows)) for name, values in self.columns.items()}
        return [
            JointBatch(self.layout, {name: values[:, k].flatten(0, 1) for name, values in parts.items()})
            for k in range(num_shards)
        ]

    @cached_property
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
            parts = [self.layout.split(self.columns[column], m, COLUMNS[column]).transpose(0, 1) for m in modules]
            self._stacked[key] = torch.stack(parts)
        return self._stacked[key]

    @cached_property
    def inputs(self) -> Tensor:
        """What critics see of the rows: (x, a_1 ... a_N), `[B, obs_dim + code_dim of all agents]`."""
        return torch.cat([self.columns["obs"], self.columns["actions"]], -1)

    @cached_property
    def next_obs(self) -> Tensor:
        """x', `[B, obs_dim of all agents]`, zeros for agents that are dead by then."""
        widths = [slot.obs.stop - slot.obs.start for slot in self.layout.slots]
        agents = zip(self.columns["new_obs"].split(widths, -1), self.columns["next_alive"].split(1, -1), strict=True)
        return torch.cat([obs * alive for obs, alive in agents], -1)
