"""What modules that approximate the others' policies take the others to do (Lowe et al. 2017, equation 8). No Ray here.

Shapes: B rows; G modules that approximate, each the n agents of another module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from rllib_maddpg.learning.groups import NetworkGroup, of_role
from rllib_maddpg.learning.joint_actions import JointActions, masked
from rllib_maddpg.modules.inferred import inferred_inputs
from rllib_maddpg.modules.specs import INFERRED
from rllib_maddpg.rows.joint_batch import JointBatch


class Beliefs:
    """Joint actions as single modules see them: their own by their own actors, those of others by approximations."""

    def __init__(self, actions: JointActions):
        self._actions = actions
        self._modules = {m for group in of_role(actions.groups, INFERRED) for m in group.modules}

    def are_of(self, modules: tuple[str, ...]) -> bool:
        """Whether all of these modules have approximations."""
        return self._modules.issuperset(modules)

    @torch.no_grad()
    def next_actions(self, modules: tuple[str, ...], joint: JointBatch) -> Tensor:
        """What each of G modules takes all agents to do in x' by its targets, `[G, B, code_dim of all agents]`."""
        return self._joined(modules, joint, self._actions.next_codes(joint, modules), self._next_codes)

    @torch.no_grad()
    def current_actions(self, modules: tuple[str, ...], joint: JointBatch) -> Tensor:
        """What each of G modules takes all agents to do now, `[G, B, code_dim of all agents]`."""
        return self._joined(modules, joint, self._actions.current_codes(joint, modules), self._current_codes)

    def _joined(
        self,
        modules: tuple[str, ...],
        joint: JointBatch,
        own: Mapping[str, Tensor],
        approximated: Callable[[NetworkGroup, JointBatch], Tensor],
    ) -> Tensor:
        layout = self._actions.layout
        # Zeros stay for modules that act by a rule and do not learn: nobody asks for their own idea of it.
        joined = joint.joint_rows.new_zeros(len(modules), len(joint), layout.action_dim)
        at = {m: k for k, m in enumerate(modules)}
        for module_id, code in own.items():
            joined[at[module_id], :, layout.span((module_id,), "actions")] = code.transpose(0, 1).flatten(1)
        for group in approximations(of_role(self._actions.groups, INFERRED)):
            span = layout.span(layout.everywhere(group.about)[:1], "actions")
            for here, there in _common(modules, group.modules):
                joined[here, :, span] = approximated(group, joint)[there].transpose(1, 2).flatten(2)
        return joined

    def _next_codes(self, group: NetworkGroup, joint: JointBatch) -> Tensor:
        """Target actions by approximations, `[G, n, B, dim]`; zeros for agents that do not act there."""

        def act() -> Tensor:
            output = outputs_of(group, joint, "new_obs", target=True)
            noise = self._actions.smoothing(group, joint.layout.beside(group.modules, group.about), joint)
            if group.codec.categorical and group.settings.inferred_target == "probabilities":
                code = group.codec.probabilities(output if noise is None else output + noise)
            else:
                code = group.codec.greedy(output) if noise is None else group.codec.smoothed(output, noise)
            return code * joint.stack(joint.layout.beside(group.modules, group.about), "next_acts").unsqueeze(-1)

        return self._actions.once(("next_beliefs", group, joint), act)

    def _current_codes(self, group: NetworkGroup, joint: JointBatch) -> Tensor:
        """Actions by approximations as actors would be sampled, `[G, n, B, dim]`; zeros for agents that do not act."""

        def act() -> Tensor:
            output = outputs_of(group, joint, "obs")
            about = joint.layout.beside(group.modules, group.about)
            gumbel = self._actions.gumbel(group.codec, about, joint)
            return self._actions.sampled(group, output, gumbel) * joint.stack(about, "acted").unsqueeze(-1)

        return self._actions.once(("current_beliefs", group, joint), act)


def _common(modules: tuple[str, ...], others: tuple[str, ...]) -> list[tuple[slice, slice]]:
    """Where modules that are in both lie side by side in both; an index for each would have to be copied to a GPU."""
    at = {m: k for k, m in enumerate(others)}
    places = [(g, at[m]) for g, m in enumerate(modules) if m in at]
    runs: list[list[tuple[int, int]]] = []
    for place in places:
        if runs and place == (runs[-1][-1][0] + 1, runs[-1][-1][1] + 1):
            runs[-1].append(place)
        else:
            runs.append([place])
    return [tuple(slice(first, last + 1) for first, last in zip(run[0], run[-1], strict=True)) for run in runs]


def approximations(groups: Iterable[NetworkGroup]) -> list[NetworkGroup]:
    """Of the groups of this role those whose networks give head outputs of other modules' actors."""
    return [group for group in groups if group.target is not None]  # the others hold standard deviations


def outputs_of(group: NetworkGroup, joint: JointBatch, column: str, target: bool = False) -> Tensor:
    """Head outputs that approximations give the agents that they are about, `[G, n, B, dim]`; `MASKED` as those of actors.

    Args:
        group: Of approximations.
        joint: The rows.
        column: "obs" or "new_obs".
        target: Whether to ask their targets.
    """
    network: Any = group.target if target else group.network
    output = network.of_all(inferred_inputs(joint, group.about, column)).unflatten(1, (-1, len(joint)))
    return masked(group, output, joint, column)
