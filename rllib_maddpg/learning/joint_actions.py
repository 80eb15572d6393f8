"""What all agents do in the rows of one update: by their actors, their target actors, or a rule of their own. No Ray here.

An agent that has several sub-policies does what the one does that acts in the row's episode, which is known from the row.

Shapes: B rows; G modules of n agents each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rllib_maddpg.learning.groups import NetworkGroup, actors_of, first_of, trained
from rllib_maddpg.learning.update_noise import UpdateNoise
from rllib_maddpg.modules.rule_modules import rule_codes
from rllib_maddpg.modules.sub_policies import SUB_POLICIES, select
from rllib_maddpg.rows.estimators import gapped_straight_through, gumbel_rao
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.layout import JointLayout


class JointActions:
    """The actions of all agents, each computed once.

    Attributes:
        layout: Order of agents and modules.
        groups: All networks, by name.
        noise: Of this update.
        once: `UpdateContext.once`.
        smooths: Whether there is noise on target actions (`target_policy_noise`).
    """

    def __init__(
        self,
        layout: JointLayout,
        groups: Mapping[str, list[NetworkGroup]],
        rules: Mapping[str, Any],
        noise: UpdateNoise,
        once: Callable[[tuple, Callable[[], Any]], Any],
        smooths: bool,
    ):
        self.layout, self.groups, self.noise, self.once, self.smooths = layout, groups, noise, once, smooths
        self._rules = rules
        actors = actors_of(groups)
        # The groups that stand for their modules, and the other sub-policies of these.
        self._first = first_of(actors)
        self._others = [group for group in actors if not group.is_first]

    def policy(self, group: NetworkGroup, joint: JointBatch) -> tuple[Tensor, Tensor]:
        """What the modules of a group of actors do now: head outputs and action codes `[G, n, B, dim]`, with gradients.

        The first group of some modules says it of all of their sub-policies, in each row of the one that acts there, and
        another one what its own sub-policy would do in all rows. Head outputs of actions that are not allowed are `MASKED`.
        """
        return self.once(("policy", group, joint), lambda: self._act(group, joint))

    @torch.enable_grad()
    def _act(self, group: NetworkGroup, joint: JointBatch) -> tuple[Tensor, Tensor]:
        output = self._output(group, joint, "obs")
        return output, self._differentiable(group, output, joint)

    def _output(self, group: NetworkGroup, joint: JointBatch, column: str, target: bool = False) -> Tensor:
        """Head outputs of the sub-policies that act, `[G, n, B, dim]`, `MASKED` where an action is not allowed.

        Args:
            group: As in `policy`.
            joint: The rows.
            column: "obs" or "new_obs".
            target: Whether to ask their targets, where they have any.
        """
        outputs = [_ask(group, joint, column, target)]
        number = group.settings.num_sub_policies if group.is_first else 1
        for place in range(1, number):
            of_place = trained((own for own in self._others if own.place == place), group.modules)
            if [own.modules for own in of_place] == [group.modules]:
                outputs.append(_ask(of_place[0], joint, column, target))
                continue
            # Networks of a user's that are alike in one sub-policy, and not in another.
            each: dict[str, Tensor] = {}
            for own in of_place:
                each.update(zip(own.modules, _ask(own, joint, column, target), strict=True))
            outputs.append(torch.stack([each[m] for m in group.modules]))
        output = outputs[0] if number == 1 else select(outputs, joint.stack(group.modules, SUB_POLICIES))
        return masked(group, output, joint, column)

    def gumbel(self, codec: Any, modules: tuple[str, ...], joint: JointBatch) -> Tensor | None:
        """Gumbel noise for the actions of some modules, `[G, n, B, dim]`, if they are categorical."""
        return self.noise.of("gumbel", joint, modules) if codec.categorical else None

    def sampled(self, group: NetworkGroup, output: Tensor, gumbel: Tensor | None) -> Tensor:
        """Action codes for which actors are judged, `[G, n, B, dim]`; their value is the same by all estimators."""
        return group.codec.sample(output, gumbel, group.settings.gumbel_softmax_temperature.unsqueeze(-1))

    def _differentiable(self, group: NetworkGroup, output: Tensor, joint: JointBatch) -> Tensor:
        """`sampled`, with a gradient by the group's `discrete_gradient_estimator`."""
        settings, modules = group.settings, group.modules
        gumbel, temperature = self.gumbel(group.codec, modules, joint), settings.gumbel_softmax_temperature.unsqueeze(-1)
        if settings.discrete_gradient_estimator == "gapped_straight_through":
            gap = settings.straight_through_gap.unsqueeze(-1)
            return group.codec.sample(output, gumbel, temperature, partial(_gapped, gap))
        if settings.discrete_gradient_estimator == "gumbel_rao" and group.codec.categorical:
            more = self.noise.more_of("gumbel", joint, modules, settings.gumbel_rao_samples)
            return group.codec.sample(output, gumbel, temperature, gumbel_rao, more)
        return self.sampled(group, output, gumbel)

    def smoothing(self, group: NetworkGroup, modules: tuple[str, ...], joint: JointBatch) -> Tensor | None:
        """Clipped noise on the target actions of some modules, for networks of a group, `[G, n, B, dim]`; None: there is none.

        Fujimoto et al. 2018, equation 14.
        """
        if not self.smooths:
            return None
        settings = group.settings
        clip = settings.target_noise_clip.unsqueeze(-1)
        return torch.clamp(settings.target_policy_noise.unsqueeze(-1) * self.noise.of("normal", joint, modules), -clip, clip)

    @torch.no_grad()
    def next_actions(self, joint: JointBatch) -> Tensor:
        """mu'(o') of all agents, or what their rules say there, `[B, code_dim of all agents]`."""

        def act() -> Tensor:
            return self.layout.join(
                self.next_codes(joint, self.layout.modules) | self._rule_codes(joint, "new_obs", "next_acts")
            )

        return self.once(("next_actions", joint), act)

    @torch.no_grad()
    def current_actions(self, joint: JointBatch) -> Tensor:
        """What all agents do now, `[B, code_dim of all agents]`."""

        def act() -> Tensor:
            codes = self.current_codes(joint, self.layout.modules)
            return self.layout.join(codes | self._rule_codes(joint, "obs", "acted"))

        return self.once(("current_actions", joint), act)

    @torch.no_grad()
    def next_codes(self, joint: JointBatch, modules: Collection[str]) -> dict[str, Tensor]:
        """mu'(o') of some modules' actors, `[n, B, code_dim]`, with noise where it is set.

        It has zeros for agents that do not act there, and nothing for modules that act by a rule.
        """
        return self._codes(
            modules, lambda group: self.once(("next_codes", group, joint), lambda: self._next_code(group, joint))
        )

    @torch.no_grad()
    def current_codes(self, joint: JointBatch, modules: Collection[str]) -> dict[str, Tensor]:
        """What some modules' actors do now, as `next_codes`."""

        def act(group: NetworkGroup) -> Tensor:
            return self.policy(group, joint)[1].detach() * joint.stack(group.modules, "acted").unsqueeze(-1)

        return self._codes(modules, act)

    def _codes(self, modules: Collection[str], act: Callable[[NetworkGroup], Tensor]) -> dict[str, Tensor]:
        codes: dict[str, Tensor] = {}
        for group in trained(self._first, modules):
            codes.update(zip(group.modules, act(group), strict=True))
        return {m: codes[m] for m in modules if m in codes and m not in self._rules}

    def _next_code(self, group: NetworkGroup, joint: JointBatch) -> Tensor:
        output = self._output(group, joint, "new_obs", target=True)
        noise = self.smoothing(group, group.modules, joint)
        code = group.codec.greedy(output) if noise is None else group.codec.smoothed(output, noise)
        return code * joint.stack(group.modules, "next_acts").unsqueeze(-1)

    def _rule_codes(self, joint: JointBatch, obs: str, acts: str) -> dict[str, Tensor]:
        """Codes of the modules that act by a rule; networks they have do not say it."""
        return {
            m: rule_codes(m, module, self.layout.codec_of(m), joint.raw.modules[m][obs], joint.modules[m][acts])
            for m, module in self._rules.items()
        }

    @torch.no_grad()
    def head_outputs(self, joint: JointBatch) -> dict[str, Tensor]:
        """Head outputs of each module's actor now, `[n, B, dim]`, but for modules that act by a rule."""

        def act() -> dict[str, Tensor]:
            outputs = {}
            for group in self._first:
                outputs.update(zip(group.modules, self._output(group, joint, "obs"), strict=True))
            return {m: output for m, output in outputs.items() if m not in self._rules}

        return self.once(("head_outputs", joint), act)


def masked(group: NetworkGroup, output: Tensor, joint: JointBatch, column: str) -> Tensor:
    """Head outputs `[G, n, B, dim]` of a group of actors, `MASKED` where an action is not allowed.

    Args:
        group: Of actors, or of approximations of those of another module.
        output: Theirs.
        joint: The rows.
        column: "obs" or "new_obs", of which the outputs are.
    """
    modules = group.modules if group.about is None else joint.layout.beside(group.modules, group.about)
    allowed = joint.allowed(modules, column)
    return output if allowed is None else group.codec.masked(output, allowed)


def _gapped(gap: Tensor, logits: Tensor, gumbel: Tensor, temperature: Tensor, more: None) -> Tensor:
    return gapped_straight_through(logits, gumbel, temperature, gap)


def _ask(group: NetworkGroup, joint: JointBatch, column: str, target: bool) -> Tensor:
    """Head outputs of a group's own networks, or of their targets, `[G, n, B, dim]`."""
    network = (group.target or group.network) if target else group.network
    return network(joint.for_actors.stack(group.modules, column))
