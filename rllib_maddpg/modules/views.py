"""What a critic sees of a joint row: the agents' observations and actions, of all of them or of its own one only. No Ray here.

Shapes: B rows; G modules of n agents each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rllib_maddpg.modules.critic_inputs import CriticInputs
from rllib_maddpg.rows.layout import JointLayout

WHOSE = ("all", "own")


@dataclass(frozen=True)
class View:
    """What a network that judges agents sees.

    Attributes:
        name: As settings and errors have it.
        agents: "all": observations and actions of all agents, the same for every agent that is judged. "own": those of the
            judged agent only.
    """

    name: str
    agents: str = "all"

    def __post_init__(self) -> None:
        if self.agents not in WHOSE:
            raise ValueError(f"View {self.name!r} has agents={self.agents!r}. It must be one of {list(WHOSE)}.")

    @property
    def is_shared(self) -> bool:
        """Whether all agents are judged by the same input."""
        return self.agents == "all"

    def obs_dim(self, layout: JointLayout, module: str) -> int:
        """Width of what it shows beside actions."""
        return layout.obs_dim if self.is_shared else layout.obs_dim_of(module)

    def action_dim(self, layout: JointLayout, module: str) -> int:
        """Width of the action codes that it shows, which come last."""
        return layout.action_dim if self.is_shared else layout.codec_of(module).dim

    def inputs(self, layout: JointLayout, modules: Sequence[str], obs: Tensor, actions: Tensor) -> CriticInputs | Tensor:
        """What the networks of some modules see, without the one-hots of the judged agents.

        Args:
            layout: Order of agents.
            modules: G modules of n agents each.
            obs: x, `[B, obs_dim of all agents]`.
            actions: a, `[B, code_dim of all agents]`.

        Returns:
            The same for all: `CriticInputs` `[B, dim]`; else `[G, n, B, dim]`.
        """
        if self.is_shared:
            return CriticInputs(torch.cat([obs, actions], -1))
        parts = layout.stack(obs, modules, "obs"), layout.stack(actions, modules, "actions")
        return torch.cat(parts, -1)


ALL = View("all")
OWN = View("own", agents="own")
VIEWS = {view.name: view for view in (ALL, OWN)}
