"""What all agents do in the rows of one update: by their actors, their target actors, or a rule of their own. No Ray here.

Shapes: B rows; G modules of n agents each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from rllib_maddpg.learning.groups import NetworkGroup, actors_of, trained
from rllib_maddpg.learning.update_noise import UpdateNoise
from rllib_maddpg.modules.rule_modules import rule_codes
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

    def policy(self, group: NetworkGroup, joint: JointBatch) -> tuple[Tensor, Tensor]:
        """What a group of actors does now: head outputs and action codes `[G, n, B, dim]`, through which gradients go."""
        return self.once(("policy", group, joint), lambda: self._act(group, joint))

    @torch.enable_grad()
    def _act(self, group: NetworkGroup, joint: JointBatch) -> tuple[Tensor, Tensor]:
        output = group.network(joint.for_actors.stack(group.modules, "obs"))
        return output, self.sampled(group, output, self.gumbel(group.codec, group.modules, joint))

    def gumbel(self, codec: Any, modules: tuple[str, ...], joint: JointBatch) -> Tensor | None:
        """Gumbel noise for the actions of some modules, `[G, n, B, dim]`, if they are categorical."""
        return self.noise.of("gumbel", joint, modules) if codec.categorical else None

    def sampled(self, group: NetworkGroup, output: Tensor, gumbel: Tensor | None) -> Tensor:
        """Action codes for which actors are judged, `[G, n, B, dim]`."""
        return group.codec.sample(output, gumbel, group.settings.gumbel_softmax_temperature.unsqueeze(-1))

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
            return self.layout.join(codes | self._rule_codes(joint, "obs", "acts"))

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
            return self.policy(group, joint)[1].detach() * joint.stack(group.modules, "acts").unsqueeze(-1)

        return self._codes(modules, act)

    def _codes(self, modules: Collection[str], act: Callable[[NetworkGroup], Tensor]) -> dict[str, Tensor]:
        codes: dict[str, Tensor] = {}
        for group in trained(actors_of(self.groups), modules):
            codes.update(zip(group.modules, act(group), strict=True))
        return {m: codes[m] for m in modules if m in codes and m not in self._rules}

    def _next_code(self, group: NetworkGroup, joint: JointBatch) -> Tensor:
        output = (group.target or group.network)(joint.for_actors.stack(group.modules, "new_obs"))
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
            for group in actors_of(self.groups):
                seen = joint.for_actors.stack(group.modules, "obs")
                outputs.update(zip(group.modules, group.network(seen), strict=True))
            return {m: output for m, output in outputs.items() if m not in self._rules}

        return self.once(("head_outputs", joint), act)
