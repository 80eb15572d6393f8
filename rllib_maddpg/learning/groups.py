"""Actors, or critics, of modules that are alike, computed as one. No Ray here."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from rllib_maddpg.modules.critics import SingleCritic, StackedCritics
from rllib_maddpg.modules.stacking import SingleNetwork, StackedMLP, is_plain_mlp, shape_of
from rllib_maddpg.rows.layout import JointLayout

ACTOR, CRITIC = "actor", "critic"


class NetworkGroup:
    """The actors, or the critics, of G modules of n agents each, with equal networks and settings.

    Attributes:
        name: "actor" or "critic".
        modules: Ids of the modules, in layout order.
        codec: Action codec of their agents; in a group of critics that of the first one only.
        network, target: All of them; see `stacking` for actors, `critics` for critics.
    """

    def __init__(self, name: str, layout: JointLayout, networks: Mapping[str, Any], stacked: bool):
        self.name, self.modules = name, tuple(networks)
        self.codec = layout.codec_of(self.modules[0])
        self._modules = list(networks.values())
        self._own, self._targets = self._networks()
        self.network, self.target = (self._joined(layout, nets, stacked) for nets in (self._own, self._targets))

    def _networks(self) -> tuple[list, list]:
        # Each update asks, and torch's own way to a submodule is slow.
        own, target = self.name, f"target_{self.name}"
        return [m._modules[own] for m in self._modules], [m._modules[target] for m in self._modules]

    def _joined(self, layout: JointLayout, networks: list, stacked: bool) -> Any:
        if self.name == ACTOR:
            return StackedMLP(networks) if stacked else SingleNetwork(networks[0])
        if stacked:
            return StackedCritics(layout, self.modules, networks)
        return SingleCritic(layout, self._modules[0], networks[0])

    def is_tied(self) -> bool:
        """Whether the modules' networks still are those of this group."""
        own, targets = self._networks()
        same = all(a is b for a, b in zip([*own, *targets], [*self._own, *self._targets], strict=True))
        return same and self.network.is_tied() and self.target.is_tied()


def group_networks(
    name: str, layout: JointLayout, networks: Mapping[str, Any], settings: Mapping[str, Hashable], stacked: bool = True
) -> list[NetworkGroup]:
    """Puts the actors, or the critics, of all modules into as few groups as can be.

    Args:
        name: "actor" or "critic".
        layout: Its modules and agents.
        networks: Module id -> `MADDPGTorchRLModule`, in layout order.
        settings: Module id -> what must be equal for two modules to be computed as one.
        stacked: False: each module by itself, with its own parameters.
    """
    alike: dict[Hashable, dict[str, Any]] = {}
    for module_id, module in networks.items():
        key: Hashable = module_id
        if stacked and is_plain_mlp(getattr(module, name)) and (name == ACTOR or module.has_plain_critic):
            # Critics only ask where an agent's action lies and how wide it is, not what it means.
            action = module.codec.key() if name == ACTOR else module.codec.dim
            key = (module.num_agents, shape_of(getattr(module, name)), action, settings[module_id])
        alike.setdefault(key, {})[module_id] = module
    return [NetworkGroup(name, layout, members, stacked=isinstance(key, tuple)) for key, members in alike.items()]
