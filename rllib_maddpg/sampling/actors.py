"""All actors in one call, for sampling: a NumPy forward for plain MLPs, which beats torch on small ones, torch for the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import nn

from rllib_maddpg.modules.networks import MLP
from rllib_maddpg.modules.normalizing import ObservationFilter
from rllib_maddpg.modules.stacking import StackedMLP, is_plain_mlp, shape_of
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.sampling.masks import JointMasks
from rllib_maddpg.sampling.observation_filter import JointFilter

# Each may overwrite its argument.
NUMPY_ACTIVATIONS: dict[type[nn.Module], Callable[[np.ndarray], np.ndarray]] = {
    nn.ReLU: lambda x: np.maximum(x, 0.0, out=x),
    nn.Tanh: lambda x: np.tanh(x, out=x),
    nn.Identity: lambda x: x,
    nn.ELU: lambda x: np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0))),
    nn.SiLU: lambda x: 0.5 * x * (1.0 + np.tanh(0.5 * x)),
    nn.LeakyReLU: lambda x: np.maximum(x, np.float32(0.01) * x),
}


# torch's default.
LAYER_NORM_EPS = 1e-5


class JointActors:
    """Head outputs of all agents from their joint observation.

    MLPs of one shape lie in one array per layer, of which their parameters are views: new weights need no copy here, as long as
    they are written into the networks and these stay what they are (`is_current`).
    """

    def __init__(
        self,
        layout: JointLayout,
        actors: Mapping[str, Sequence[nn.Module]],
        filters: Mapping[str, ObservationFilter] | None = None,
    ):
        """
        Args:
            layout: Order of agents.
            actors: Per module id the networks of its sub-policies, mostly one, `[..., obs_dim]` -> `[..., head output]`.
            filters: Per module id what normalizes observations; None: they are taken as they are.
        """
        self.action_dim = layout.action_dim
        self._filter = JointFilter(layout, filters) if filters else None
        self._actors = dict(actors)
        self._masks = JointMasks(layout)
        # Neighbours of one shape become one batched product. Their agents lie side by side in the joint row.
        self._forwards = []
        for key, group in groupby(layout.modules, key=lambda m: self._key(m, len(layout.slots_of(m)))):
            modules = list(group)
            slots = [slot for m in modules for slot in layout.slots_of(m)]
            agents = len(slots) // len(modules)
            numpy_can = not isinstance(key, str)
            # The networks of all modules of each sub-policy.
            ensembles = zip(*(actors[m] for m in modules), strict=True)
            of_each = [StackedMLPs(list(own), agents) if numpy_can else TorchActor(*own, agents) for own in ensembles]
            places = slice(layout.index(slots[0].agent), layout.index(slots[-1].agent) + 1)
            forward = of_each[0] if len(of_each) == 1 else SelectedActors(of_each, places)
            obs = slice(slots[0].obs.start, slots[-1].obs.stop)
            self._forwards.append((forward, obs, slice(slots[0].actions.start, slots[-1].actions.stop)))

    def _key(self, module: str, agents: int) -> tuple | str:
        actors = self._actors[module]
        return (agents, *map(shape_of, actors)) if all(map(numpy_can_compute, actors)) else module

    def is_current(
        self, actors: Mapping[str, Sequence[nn.Module]], filters: Mapping[str, ObservationFilter] | None = None
    ) -> bool:
        """Whether these still are the actors and filters, and nobody has given them new storage."""
        same = all(a is b for m, own in self._actors.items() for a, b in zip(actors[m], own, strict=True))
        same &= self._filter is None or self._filter.is_current(filters)
        return same and all(forward.is_current() for forward, _, _ in self._forwards)

    def __call__(self, obs: np.ndarray, sub_policies: np.ndarray | None = None) -> np.ndarray:
        """Joint observations `[E, obs_dim]` float32 -> head outputs `[E, action_dim]` float32.

        They are `MASKED` where an observation says that an action is not allowed.

        Args:
            obs: The observations.
            sub_policies: Of each agent the one that acts, `[E, N]`; may be None where no module has several.
        """
        outputs = self._outputs(obs if self._filter is None else self._filter(obs), sub_policies)
        return self._masks.masked(obs, outputs) if self._masks else outputs

    def _outputs(self, obs: np.ndarray, sub_policies: np.ndarray | None) -> np.ndarray:
        if len(self._forwards) == 1:
            return self._forwards[0][0](obs, sub_policies)
        outputs = np.empty((len(obs), self.action_dim), np.float32)
        for forward, columns, actions in self._forwards:
            outputs[:, actions] = forward(obs[:, columns], sub_policies)
        return outputs


class SelectedActors:
    """K sub-policies of some modules, of which each agent plays one."""

    def __init__(self, of_each: Sequence[StackedMLPs | TorchActor], agents: slice):
        """
        Args:
            of_each: What computes the k-th sub-policies of all of these agents.
            agents: Where they stand among all.
        """
        self._of_each, self._agents = list(of_each), agents

    def is_current(self) -> bool:
        """As in `JointActors`."""
        return all(forward.is_current() for forward in self._of_each)

    def __call__(self, obs: np.ndarray, sub_policies: np.ndarray) -> np.ndarray:
        """`[E, n * obs_dim]` of n agents, and which sub-policies all N agents play, `[E, N]` -> `[E, n * output_dim]`."""
        which = sub_policies[:, self._agents]
        played = np.flatnonzero(np.bincount(which.ravel(), minlength=len(self._of_each)))  # the others need no computing
        outputs = self._of_each[played[0]](obs)
        if len(played) > 1:
            outputs = outputs.reshape(*which.shape, -1)
            for k in played[1:]:
                own = which == k
                outputs[own] = self._of_each[k](obs).reshape(outputs.shape)[own]
            outputs = outputs.reshape(len(obs), -1)
        return outputs


class StackedMLPs:
    """M MLPs of one shape, each for n agents, as products of arrays `[M, E * n, width]`."""

    def __init__(self, mlps: list[MLP], agents: int):
        """
        Args:
            mlps: The networks; their parameters become views of one tensor per layer.
            agents: Number of agents, n, that each network serves.
        """
        self._size, self._agents = len(mlps), agents
        self._stack = StackedMLP(mlps)
        self._activation = NUMPY_ACTIVATIONS[type(mlps[0].activation)]
        arrays = [p.detach().numpy() for p in self._stack.parameters]
        step = 4 if mlps[0].norms else 2
        self._layers = [(w.swapaxes(1, 2), b[:, None]) for w, b in zip(arrays[::step], arrays[1::step], strict=True)]
        norms = zip(arrays[2::4], arrays[3::4], strict=True) if step == 4 else ()
        self._norms = [(gain[:, None], shift[:, None]) for gain, shift in norms] or [None] * (len(self._layers) - 1)

    def is_current(self) -> bool:
        """Whether the networks' parameters still are views of these arrays."""
        return self._stack.is_tied()

    def __call__(self, obs: np.ndarray, sub_policies: np.ndarray | None = None) -> np.ndarray:
        """`[E, M * n * obs_dim]` -> `[E, M * n * output_dim]`; there is one policy of each."""
        envs, m, n = len(obs), self._size, self._agents
        x = obs.reshape(envs, m, n, -1).swapaxes(0, 1).reshape(m, envs * n, -1)
        for (weights, biases), norm in zip(self._layers[:-1], self._norms, strict=True):
            x = np.matmul(x, weights)
            x += biases
            x = self._activation(x if norm is None else layer_norm(x, *norm))
        weights, biases = self._layers[-1]
        x = np.matmul(x, weights) + biases
        return x.reshape(m, envs, n, -1).swapaxes(0, 1).reshape(envs, -1)


def layer_norm(x: np.ndarray, gain: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """torch's `LayerNorm` of the last axis; overwrites x."""
    x -= x.mean(-1, keepdims=True)
    x /= np.sqrt(np.square(x).mean(-1, keepdims=True) + np.float32(LAYER_NORM_EPS))
    x *= gain
    x += shift
    return x


class TorchActor:
    """Any network, on any device, for n agents."""

    def __init__(self, actor: nn.Module, agents: int):
        self._actor, self._agents = actor, agents
        self._device = next((p.device for p in actor.parameters()), torch.device("cpu"))

    def is_current(self) -> bool:
        """True: it calls the network itself."""
        return True

    def __call__(self, obs: np.ndarray, sub_policies: np.ndarray | None = None) -> np.ndarray:
        """`[E, n * obs_dim]` -> `[E, n * output_dim]`; there is one policy."""
        with torch.no_grad():
            batch = torch.from_numpy(np.ascontiguousarray(obs)).reshape(len(obs) * self._agents, -1)
            return self._actor(batch.to(self._device)).cpu().numpy().reshape(len(obs), -1)


def numpy_can_compute(actor: nn.Module) -> bool:
    """Whether the actor is an `MLP` on the CPU of activations that NumPy has."""
    if not is_plain_mlp(actor):
        return False
    return type(actor.activation) in NUMPY_ACTIVATIONS and actor.linears[0].weight.device.type == "cpu"
