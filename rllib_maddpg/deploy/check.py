"""Compares an exported actor with the RLModule that it was made from, on random observations."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tree
from ray.rllib.core.columns import Columns
from ray.rllib.utils.spaces.space_utils import batch as batch_items
from ray.rllib.utils.spaces.space_utils import unsquash_action

from rllib_maddpg.deploy.maddpg_actors import Actors
from rllib_maddpg.modules.rl_module import HEAD_OUTPUT, MADDPGTorchRLModule
from rllib_maddpg.rows.actions import ActionCodec
from rllib_maddpg.rows.observations import MASK, Flattener, mask_columns

NUM_OBSERVATIONS = 1000
TOLERANCE = 1e-5
# Observations are drawn from their space first, then from normal distributions that are this wide.
_WIDTHS = (None, 1.0, 10.0, 100.0)
# Rounding errors inside of a network may be this much larger than the effect of the last bit of its input.
_ROUNDING = 16.0


class Reference:
    """What the env runner would do for one agent: its flattening and RLlib's scaling around the RLModule."""

    def __init__(self, module: MADDPGTorchRLModule, observation_space: gym.Space):
        self.module, self.codec = module, module.codec
        self._flatten = Flattener(observation_space, module.module_id)

    def __call__(self, observations: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """B observations of the env -> its actions `[B, ...]` and the actor's output `[B, dim]`."""
        batch = {Columns.OBS: torch.from_numpy(np.stack([self._flatten(obs) for obs in observations]))}
        output = self.module.forward_exploration(batch)[HEAD_OUTPUT].numpy()
        actions = self.module.forward_inference(batch)[Columns.ACTIONS].numpy()
        return np.stack([unsquash_action(action, self.codec.space) for action in actions]), output

    def differences(self, actions: np.ndarray, expected: np.ndarray, output: np.ndarray) -> np.ndarray:
        """How far actions are from the expected ones, per row.

        Args:
            actions, expected: `[B, ...]`. Boxes: their largest difference, in units of the largest bound above 1.
            output: The actor's output for the expected ones, `[B, dim]`. Others: how much less it is for the action chosen.
        """
        rows = len(actions)
        if self.codec.categorical:
            taken = np.where(self.codec.encode(actions) > 0, output, -np.inf)
            blocks = zip(self.codec.offsets, self.codec.nvec, strict=True)
            return np.max([output[:, o : o + n].max(-1) - taken[:, o : o + n].max(-1) for o, n in blocks], 0)
        space = self.codec.space
        unit = max(1.0, float(np.abs([space.low, space.high]).max()))
        return np.abs(actions.astype(np.float64) - expected).reshape(rows, -1).max(-1) / unit


def check_actor(
    actors: Actors, agent: Hashable, module: MADDPGTorchRLModule, observation_space: gym.Space, seed: int = 0
) -> float:
    """The largest difference between an exported actor and its RLModule.

    Both compute in float32, and on large observations rounding alone makes more than the tolerance: torch itself differs by as
    much between batches of two sizes. So where the last bit of the observations moves the module's own answer, a multiple of
    that is allowed, too.

    Args:
        actors: As loaded from their files.
        agent: Id of the one that is checked, as the env gives it.
        module: Of the same agent.
        observation_space: What the agent observes.
        seed: Of the observations.

    Raises:
        ValueError: If it is larger than `TOLERANCE`, or the action is not one of the agent's space.
    """
    rng = np.random.default_rng(seed)
    reference, largest = Reference(module, observation_space), 0.0
    for width in _WIDTHS:
        observations = random_observations(observation_space, NUM_OBSERVATIONS // len(_WIDTHS), width, rng)
        observations = [with_random_mask(obs, observation_space, reference.codec, rng) for obs in observations]
        expected, output = reference(observations)
        moved_actions, moved_output = reference([_moved(obs, rng) for obs in observations])
        if reference.codec.categorical:
            rounding = np.abs(moved_output - output).max()
        else:
            rounding = reference.differences(moved_actions, expected, output).max()
        allowed = TOLERANCE + _ROUNDING * rounding
        actions = actors[agent].batch(batch_items(observations))
        one = actors.act({agent: observations[0]})[agent]
        found = reference.differences(actions, expected, output).max()
        found = max(found, reference.differences(one[None], expected[:1], output[:1]).max())
        if not found <= allowed:
            raise ValueError(
                f"Agent {agent!r}: the exported actor differs from its RLModule by {found:.2g} (allowed: {allowed:.2g}). "
                "Its `build_actor` makes a network that cannot be traced, such as one whose steps depend on its input."
            )
        largest = max(largest, float(found))
    return largest


def random_observations(space: gym.Space, number: int, width: float | None, rng: np.random.Generator) -> list[Any]:
    """Observations of a space.

    Args:
        space: What an agent observes.
        number: Of observations.
        width: Standard deviation of the numbers in float boxes, whatever their bounds; None: as the space draws them.
        rng: What they are drawn with.
    """
    space = copy.deepcopy(space)  # whose seed nobody else is to notice
    space.seed(int(rng.integers(2**31)))
    observations = [space.sample() for _ in range(number)]
    if width is None:
        return observations
    return [tree.map_structure(lambda x: _normal(x, width, rng), obs) for obs in observations]


def with_random_mask(observation: Any, space: gym.Space, codec: ActionCodec, rng: np.random.Generator) -> Any:
    """An observation with another action mask, if it has one, which allows at least one action of each part."""
    if mask_columns(space, None) is None:
        return observation
    parts = [rng.random(n) < 0.5 for n in codec.nvec]
    for part in parts:
        part[rng.integers(len(part))] = True
    mask, space = np.concatenate(parts), space[MASK]
    leaves = list(space) if isinstance(space, gym.spaces.Tuple) else [space]
    ends = np.cumsum([np.prod(leaf.shape, dtype=int) for leaf in leaves])
    values = [own.reshape(leaf.shape).astype(leaf.dtype) for own, leaf in zip(np.split(mask, ends[:-1]), leaves, strict=True)]
    return {**observation, MASK: tuple(values) if isinstance(space, gym.spaces.Tuple) else values[0]}


def _moved(observation: Any, rng: np.random.Generator) -> Any:
    """`_last_bit`, but for an action mask."""
    moved = _last_bit(observation, rng)
    return {**moved, MASK: observation[MASK]} if isinstance(observation, dict) and MASK in observation else moved


def _normal(x: Any, width: float, rng: np.random.Generator) -> Any:
    if not _is_float(x):
        return x
    return (width * rng.standard_normal(x.shape)).astype(x.dtype)


def _last_bit(observation: Any, rng: np.random.Generator) -> Any:
    """The observation with relative changes of float32's precision."""

    def change(x: Any) -> Any:
        if not _is_float(x):
            return x
        step = np.float32(np.finfo(np.float32).eps) * rng.choice([-1, 1], x.shape)
        return (x.astype(np.float32) * (1 + step)).astype(np.float32)

    return tree.map_structure(change, observation)


def _is_float(x: Any) -> bool:
    return isinstance(x, np.ndarray) and np.issubdtype(x.dtype, np.floating)
