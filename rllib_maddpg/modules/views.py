"""What a critic sees of a joint row: observations and actions, of all agents or of its own one only; the global state. No Ray
here.

Shapes: B rows; G modules of n agents each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rllib_maddpg.modules.critic_inputs import CriticInputs, PresentInputs, SeparateInputs, SlotInputs, critic_inputs
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.schema import NEXT, RowSchema

WHOSE = ("all", "own")
# Name of the column that holds the env's global state.
STATE = "state"


# By name: whose observations and actions, which columns, and whether observations are seen at all.
_TAKEN: dict[str, tuple[str, tuple[str, ...], bool]] = {
    "all": ("all", (), True),
    "own": ("own", (), True),
    "state": ("all", (STATE,), False),
    "state+all": ("all", (STATE,), True),
}


@dataclass(frozen=True)
class View:
    """What a network that judges agents sees.

    Attributes:
        name: As settings and errors have it.
        agents: "all": observations and actions of all agents, the same for every agent that is judged. "own": those of the
            judged agent only.
        columns: Names of other columns that it sees, too: the env's global state ("state"), and users' columns, of which it
            sees what belongs to the env and what belongs to these agents.
        observations: Whether it sees the agents' observations. False: only their actions and the columns.
        presence: Whether it sees which agents are in the game (a number each, behind the columns). Attention critics do; only
            where all agents are seen.
    """

    name: str
    agents: str = "all"
    columns: tuple[str, ...] = ()
    observations: bool = True
    presence: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"A View has name={self.name!r}. Give a word.")
        if self.agents not in WHOSE:
            raise ValueError(f"View {self.name!r} has agents={self.agents!r}. It must be one of {list(WHOSE)}.")
        if not isinstance(self.columns, (list, tuple)) or not all(isinstance(name, str) for name in self.columns):
            raise ValueError(f"View {self.name!r} has columns={self.columns!r}. Give a tuple of names of columns.")
        if not isinstance(self.observations, bool) or not (self.observations or self.columns):
            raise ValueError(
                f"View {self.name!r} has observations={self.observations!r} and columns={self.columns!r}. Give True or False, "
                "and columns where observations are not seen."
            )
        if not isinstance(self.presence, bool) or (self.presence and self.agents != "all"):
            raise ValueError(
                f"View {self.name!r} has agents={self.agents!r} and presence={self.presence!r}. Give True or False; with "
                "True it must show all agents (`agents='all'`)."
            )
        object.__setattr__(self, "columns", tuple(self.columns))
        whose = self.agents, self.columns, self.observations
        if self.name in _TAKEN and whose != _TAKEN[self.name]:
            raise ValueError(
                f"View {self.name!r} has agents={self.agents!r}, columns={self.columns!r} and observations="
                f"{self.observations!r}, but {self.name!r} is the name of the view with {_TAKEN[self.name]} for these. Give "
                "yours another name."
            )

    @property
    def sees_state(self) -> bool:
        """Whether it sees the env's global state."""
        return STATE in self.columns

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
        names = ("obs", *self.columns) if self.observations else self.columns
        width = sum(schema.width(name) if self.is_shared else schema.width_of_one(name, module) for name in names)
        return width + len(schema.layout) if self.presence else width

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
    ) -> CriticInputs | SlotInputs | SeparateInputs | PresentInputs | Tensor:
        """What the networks of some modules see, without the one-hots of the judged agents.

        Args:
            joint: The rows.
            modules: G modules of n agents each.
            obs: Other observations than the rows', `[B, obs_dim of all agents]`; not looked at where they are not seen.
            actions: Other actions than the rows', `[B, code_dim of all agents]`; `[G, B, ...]` where each module has its own
                idea of them, and the view is shared.
            at_next: Whether the columns are those at x'.

        Returns:
            The same for all: `CriticInputs` `[B, dim]` (`SlotInputs` of several games), or but for the actions
            `SeparateInputs`, or in parts `PresentInputs`; else `[G, n, B, dim]`.
        """
        if self.presence:
            return self._in_parts(joint, obs, actions, at_next)
        if self.is_shared and obs is actions is None and not self.columns:
            return critic_inputs(joint.obs_and_actions)  # without a copy
        obs = joint.columns["obs"] if obs is None else obs
        actions = joint.columns["actions"] if actions is None else actions
        columns = [NEXT + name if at_next else name for name in self.columns]
        if self.is_shared:
            seen = [obs] if self.observations else []
            seen += [joint.columns[name].to(actions.dtype) for name in columns]
            if actions.shape[:-1] != seen[0].shape[:-1]:
                return SeparateInputs(critic_inputs(torch.cat(seen, -1)), actions)
            return critic_inputs(torch.cat([*seen, actions], -1))
        seen = [joint.layout.stack(obs, modules, "obs")] if self.observations else []
        seen += [_with_width(joint.stack(modules, name)).to(actions.dtype) for name in columns]
        return torch.cat([*seen, joint.layout.stack(actions, modules, "actions")], -1)

    def _in_parts(self, joint: JointBatch, obs: Tensor | None, actions: Tensor | None, at_next: bool) -> PresentInputs:
        """As `inputs`, with who is in the game."""
        at = NEXT if at_next else ""
        actions = joint.columns["actions"] if actions is None else actions
        if self.observations:
            obs = joint.columns["obs"] if obs is None else obs
        columns = [joint.columns[at + name].to(actions.dtype) for name in self.columns]
        return PresentInputs(
            obs if self.observations else None,
            torch.cat(columns, -1) if columns else None,
            joint.columns["next_alive" if at_next else "alive"],
            actions,
        )


def _with_width(column: Tensor) -> Tensor:
    """`[G, n, B]` or `[G, n, B, dim]` -> `[G, n, B, dim]`."""
    return column.unsqueeze(-1) if column.dim() == 3 else column


VIEWS = {name: View(name, *given) for name, given in _TAKEN.items()}
ALL, OWN = VIEWS["all"], VIEWS["own"]
