"""Which modules have networks with one set of weights, and the optimizer of such. No Ray here."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rllib_maddpg.learning.group_optimizer import GroupOptimizer
from rllib_maddpg.modules.attention import AttentionCritic
from rllib_maddpg.modules.common_weights import CommonWeights
from rllib_maddpg.modules.specs import NetworkSpec


def common_key(spec: NetworkSpec, network: Any) -> Hashable | None:
    """Equal for networks that have one set of weights; None: the network has its own."""
    if not isinstance(network, AttentionCritic):
        return None
    shapes = tuple((tuple(p.shape), p.dtype, p.requires_grad) for p in network.parameters())
    return spec.name, spec.view, type(network), type(network.activation), network.num_heads, shapes


def common_weights(modules: Mapping[str, Any]) -> dict[tuple[str, str], tuple[CommonWeights, ...]]:
    """Makes one set of weights of networks that are to have one: (name, module) -> that of the network, and its target's."""
    made = {}
    for spec, members in _sets(modules):
        own = tuple(CommonWeights([modules[m]._modules[name] for m in members]) for name in spec.attributes)
        made |= {(spec.name, m): own for m in members}
    return made


def start_alike(modules: Mapping[str, Any]) -> bool:
    """Networks that are to have one set of weights begin with those of the first module. Returns whether there are any.

    They have one set from here on: what is restored of a single module before the first update is for all of them, too.
    """
    return bool(common_weights(modules))


def _sets(modules: Mapping[str, Any]) -> list[tuple[NetworkSpec, list[str]]]:
    sets: dict[Hashable, tuple[NetworkSpec, list[str]]] = {}
    for module_id, module in modules.items():
        for spec in module.network_specs:
            key = common_key(spec, module._modules[spec.name])
            if key is not None:
                sets.setdefault(key, (spec, []))[1].append(module_id)
    return list(sets.values())


class CommonOptimizer(GroupOptimizer):
    """The optimizers of networks with one set of weights, which have one step, one set of moments and one clock.

    The first one's options hold; settings by which they could differ are refused.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], parameters: Sequence[Sequence[Tensor]]):
        """
        Args:
            optimizers: Of each network.
            parameters: Of each network, which lie in the same place.
        """
        self._others = list(zip(optimizers[1:], parameters[1:], strict=True))
        super().__init__(optimizers[:1], parameters[:1], [p.detach().unsqueeze(0) for p in parameters[0]])

    def tie(self) -> None:
        """As in `GroupOptimizer`; others have the state of the first one."""
        super().tie()
        (first,), (mine,) = self._optimizers, self._params
        for optimizer, parameters in self._others:
            for p, own in zip(mine, parameters, strict=True):
                if first.state[p]:
                    optimizer.state[own].update(first.state[p])

    def prepare(self, members: Collection[int]) -> Hashable:
        """As in `GroupOptimizer`; whoever learns, it is one step."""
        return super().prepare((0,))

    def step(self, gradients: Sequence[Tensor], members: Collection[int], skip: Tensor | None = None) -> None:
        """As in `GroupOptimizer`, with gradients `[1, ...]`; whoever learns, it is one step."""
        super().step(gradients, (0,), skip)
