"""What a critic sees of a joint row: the agents' observations and actions, of all of them or of its own one only. No Ray here.

Shapes: B rows; G modules of n agents each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rllib_maddpg.modules.critic_inputs import CriticInputs, SeparateInputs, SlotInputs, critic_inputs
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.schema import NEXT, RowSchema

WHOSE = ("all", "own")


@dataclass(frozen=True)
class View:
    """What a network that judges agents sees.

    Attributes:
        name: As settings and errors have it.
        agents: "all": observations and actions of all agents, the same for every agent that is judged. "own": those of the
            judged agent only.
        columns: Names of users' columns that it sees, too: what belongs to the env, and what belongs to these agents.
    """

    name: str
    agents: str = "all"
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"A View has name={self.name!r}. Give a word.")
        if self.agents not in WHOSE:
            raise ValueError(f"View {self.name!r} has agents={self.agents!r}. It must be one of {list(WHOSE)}.")
        if not isinstance(self.columns, (list, tuple)) or not all(isinstance(name, str) for name in self.columns):
            raise ValueError(f"View {self.name!r} has columns={self.columns!r}. Give a tuple of names of columns.")
        if self.name in WHOSE and (self.agents != self.name or self.columns):
            raise ValueError(
                f"View {self.name!r} has agents={self.agents!r} and columns={self.columns!r}, but {self.name!r} is the name of "
                f"what sees agents={self.name!r} and nothing else. Give yours another name."
            )
        object.__setattr__(self, "columns", tuple(self.columns))

    @property
    def is_shared(self) -> bool:
        """Whether all agents are judged by the same input."""
        return self.agents == "all"

    def check(self, schema: RowSchema) -> None:
        """Its columns are there, also at x', where targets are computed.

        Raises:
            ValueError: Naming view and column.
        """
        mine = [column.name for column in (*schema.extra, *schema.own)]
        for name in self.columns:
            if name not in mine:
                raise ValueError(
                    f"view {self.name!r} has a column {name!r}, but `extra_columns` has only {mine}. Add it there, or take it "
                    "out of the view."
                )
            if not schema.column(name).finite:
                raise ValueError(
                    f"view {self.name!r} has a column {name!r} that may be NaN or infinite. Declare it with `finite=True`."
                )
            if NEXT + name not in schema:
                raise ValueError(
                    f"view {self.name!r} has a column {name!r} without a value at x', which targets need. Declare it with "
                    "`at_next=True`."
                )

    def obs_dim(self, schema: RowSchema, module: str) -> int:
        """Width of what it shows beside actions."""
        names = ("obs", *self.columns)
        return sum(schema.width(name) if self.is_shared else schema.width_of_one(name, module) for name in names)

    def action_dim(self, schema: RowSchema, module: str) -> int:
        """Width of the action codes that it shows, which come last."""
        return schema.layout.action_dim if self.is_shared else schema.layout.codec_of(module).dim

    def inputs(
        self,
        joint: JointBatch,
        modules: Sequence[str],
        obs: Tensor | None = None,
        actions: Tensor | None = None,
        at_next: bool = False,
    ) -> CriticInputs | SlotInputs | SeparateInputs | Tensor:
        """What the networks of some modules see, without the one-hots of the judged agents.

        Args:
            joint: The rows.
            modules: G modules of n agents each.
            obs: Other observations than the rows', `[B, obs_dim of all agents]`.
            actions: Other actions than the rows', `[B, code_dim of all agents]`; `[G, B, ...]` where each module has its own
                idea of them, and the view is shared.
            at_next: Whether users' columns are those at x'.

        Returns:
            The same for all: `CriticInputs` `[B, dim]` (`SlotInputs` of several games), or but for the actions
            `SeparateInputs`; else `[G, n, B, dim]`.
        """
        if self.is_shared and obs is actions is None and not self.columns:
            return critic_inputs(joint.obs_and_actions)  # without a copy
        obs = joint.columns["obs"] if obs is None else obs
        actions = joint.columns["actions"] if actions is None else actions
        columns = [NEXT + name if at_next else name for name in self.columns]
        if self.is_shared:
            seen = [obs, *(joint.columns[name].to(obs.dtype) for name in columns)]
            if actions.shape[:-1] != obs.shape[:-1]:
                return SeparateInputs(critic_inputs(torch.cat(seen, -1)), actions)
            return critic_inputs(torch.cat([*seen, actions], -1))
        own_obs, own_actions = joint.layout.stack(obs, modules, "obs"), joint.layout.stack(actions, modules, "actions")
        parts = [_with_width(joint.stack(modules, name)).to(obs.dtype) for name in columns]
        return torch.cat([own_obs, *parts, own_actions], -1)


def _with_width(column: Tensor) -> Tensor:
    """`[G, n, B]` or `[G, n, B, dim]` -> `[G, n, B, dim]`."""
    return column.unsqueeze(-1) if column.dim() == 3 else column


ALL = View("all")
OWN = View("own", agents="own")
VIEWS = {view.name: view for view in (ALL, OWN)}
