"""Modules that are alike, computed as one. No Ray here."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from rllib_maddpg.critics import SingleCritic, StackedCritics
from rllib_maddpg.layout import JointLayout
from rllib_maddpg.stacking import SingleNetwork, StackedMLP, is_plain_mlp, shape_of


class ModuleGroup:
    """G modules of n agents each, with equal networks, action spaces and settings.

    Attributes:
        modules: Their ids, in layout order.
        codec: Action codec of all their agents.
        actor, critic, target_actor, target_critic: The networks of all of them; see `stacking` and `critics`.
    """

    def __init__(self, layout: JointLayout, networks: Mapping[str, Any], stacked: bool):
        self.modules = tuple(networks)
        self.codec = layout.codec_of(self.modules[0])
        self._members = [(m, m.actor, m.critic, m.target_actor, m.target_critic) for m in networks.values()]
        every = list(networks.values())
        if stacked:
            self.actor, self.target_actor = StackedMLP([m.actor for m in every]), StackedMLP([m.target_actor for m in every])
            self.critic = StackedCritics(layout, self.modules, [m.critic for m in every])
            self.target_critic = StackedCritics(layout, self.modules, [m.target_critic for m in every])
        else:
            module = every[0]
            self.actor, self.target_actor = SingleNetwork(module.actor), SingleNetwork(module.target_actor)
            self.critic = SingleCritic(layout, module, module.critic)
            self.target_critic = SingleCritic(layout, module, module.target_critic)

    def is_tied(self) -> bool:
        """Whether the modules' networks still are those of this group."""
        same = all(
            m.actor is actor and m.critic is critic and m.target_actor is target_actor and m.target_critic is target_critic
            for m, actor, critic, target_actor, target_critic in self._members
        )
        return same and all(net.is_tied() for net in (self.actor, self.critic, self.target_actor, self.target_critic))


def group_modules(
    layout: JointLayout, networks: Mapping[str, Any], settings: Mapping[str, Hashable], stacked: bool = True
) -> list[ModuleGroup]:
    """Puts all modules into as few groups as can be.

    Args:
        layout: Its modules and agents.
        networks: Module id -> `MADDPGTorchRLModule`.
        settings: Module id -> what must be equal for two modules to be computed as one.
        stacked: False: each module by itself, with its own parameters.
    """
    alike: dict[Hashable, dict[str, Any]] = {}
    for module_id in layout.modules:
        module = networks[module_id]
        key = module_id
        if stacked and _is_stackable(module):
            shapes = shape_of(module.actor), shape_of(module.critic)
            key = (module.num_agents, *shapes, module.codec.key(), settings[module_id])
        alike.setdefault(key, {})[module_id] = module
    return [ModuleGroup(layout, members, stacked=isinstance(key, tuple)) for key, members in alike.items()]


def _is_stackable(module: Any) -> bool:
    return module.has_plain_critic and all(is_plain_mlp(net) for net in (module.actor, module.critic))
