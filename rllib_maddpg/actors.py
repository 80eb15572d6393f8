"""All actors in one call, for sampling: a NumPy forward for plain MLPs, which beats torch on small ones, torch for the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import groupby

import numpy as np
import torch
from torch import nn

from rllib_maddpg.layout import JointLayout
from rllib_maddpg.networks import MLP

# Each may overwrite its argument.
NUMPY_ACTIVATIONS: dict[type[nn.Module], Callable[[np.ndarray], np.ndarray]] = {
    nn.ReLU: lambda x: np.maximum(x, 0.0, out=x),
    nn.Tanh: lambda x: np.tanh(x, out=x),
    nn.Identity: lambda x: x,
    nn.ELU: lambda x: np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0))),
    nn.SiLU: lambda x: 0.5 * x * (1.0 + np.tanh(0.5 * x)),
    nn.LeakyReLU: lambda x: np.maximum(x, np.float32(0.01) * x),
}


class JointActors:
    """Head outputs of all agents from their joint observation.

    Holds a copy of the actors' weights: make it anew when these have changed.
    """

    def __init__(self, layout: JointLayout, actors: Mapping[str, nn.Module]):
        """
        Args:
            layout: Order of agents.
            actors: Per module id its network, `[..., obs_dim]` -> `[..., head output]`.
        """
        self.action_dim = layout.action_dim
        parts = []
        for module in layout.modules:
            slots = layout.slots_of(module)
            parts.append((layers_of(actors[module]), actors[module], slots))
        # Neighbours of one shape become one batched product. Their agents lie side by side in the joint row.
        self._forwards = []
        for shape, group in groupby(parts, key=lambda part: part[0] and (len(part[2]), _shape(part[0]))):
            group = list(group)
            for run in [group] if shape else [[part] for part in group]:
                obs = slice(run[0][2][0].obs.start, run[-1][2][-1].obs.stop)
                actions = slice(run[0][2][0].actions.start, run[-1][2][-1].actions.stop)
                agents = len(run[0][2])
                forward = StackedMLPs([layers for layers, _, _ in run], agents) if shape else TorchActor(run[0][1], agents)
                self._forwards.append((forward, obs, actions))

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Joint observations `[E, obs_dim]` float32 -> head outputs `[E, action_dim]` float32."""
        if len(self._forwards) == 1:
            return self._forwards[0][0](obs)
        outputs = np.empty((len(obs), self.action_dim), np.float32)
        for forward, columns, actions in self._forwards:
            outputs[:, actions] = forward(obs[:, columns])
        return outputs


class StackedMLPs:
    """M MLPs of one shape, each for n agents, as products of arrays `[M, E * n, width]`."""

    def __init__(self, mlps: list[list[nn.Module]], agents: int):
        """
        Args:
            mlps: `layers_of` each of the M networks.
            agents: Number of agents, n, that each network serves.
        """
        self._size, self._agents = len(mlps), agents
        self._layers: list[tuple[np.ndarray, np.ndarray] | Callable] = []
        for layers in zip(*mlps, strict=True):
            if isinstance(layers[0], nn.Linear):
                weights = np.stack([layer.weight.detach().numpy().T for layer in layers])
                biases = np.stack([layer.bias.detach().numpy()[None] for layer in layers])
                self._layers.append((weights, biases))
            else:
                self._layers.append(NUMPY_ACTIVATIONS[type(layers[0])])

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """`[E, M * n * obs_dim]` -> `[E, M * n * output_dim]`."""
        envs, m, n = len(obs), self._size, self._agents
        x = obs.reshape(envs, m, n, -1).swapaxes(0, 1).reshape(m, envs * n, -1)
        for layer in self._layers:
            if isinstance(layer, tuple):
                x = np.matmul(x, layer[0])
                x += layer[1]
            else:
                x = layer(x)
        return x.reshape(m, envs, n, -1).swapaxes(0, 1).reshape(envs, -1)


class TorchActor:
    """Any network, on any device, for n agents."""

    def __init__(self, actor: nn.Module, agents: int):
        self._actor, self._agents = actor, agents
        self._device = next((p.device for p in actor.parameters()), torch.device("cpu"))

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """`[E, n * obs_dim]` -> `[E, n * output_dim]`."""
        with torch.no_grad():
            batch = torch.from_numpy(np.ascontiguousarray(obs)).reshape(len(obs) * self._agents, -1)
            return self._actor(batch.to(self._device)).cpu().numpy().reshape(len(obs), -1)


def layers_of(actor: nn.Module) -> list[nn.Module] | None:
    """The layers of an `MLP` that NumPy can compute; None for any other network."""
    # Exact types, because a subclass may compute something else.
    if type(actor) is not MLP or actor._forward_hooks or actor._forward_pre_hooks:
        return None
    layers = list(actor.layers)
    known = all(type(layer) is nn.Linear or type(layer) in NUMPY_ACTIVATIONS for layer in layers)
    return layers if known and actor.layers[-1].weight.device.type == "cpu" else None


def _shape(layers: list[nn.Module]) -> tuple:
    return tuple((layer.in_features, layer.out_features) if isinstance(layer, nn.Linear) else type(layer) for layer in layers)
