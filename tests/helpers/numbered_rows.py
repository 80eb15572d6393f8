"""Rollouts of numbered rows for tests of replay buffers, and their layout."""

import gymnasium as gym
import numpy as np

from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.rollout import JointRollout

LAYOUT = JointLayout(
    {a: gym.spaces.Box(-1, 1, (n,)) for a, n in {"a": 2, "b": 3, "c": 2}.items()},
    {"a": gym.spaces.Discrete(3), "b": gym.spaces.Box(-1, 1, (2,)), "c": gym.spaces.Discrete(3)},
    {"a": "m", "c": "m", "b": "n"}.get,
)


def rows(first, last):
    """Rollout whose every number is row + column / 100 + 10 * (number of the column's name)."""
    rollout = JointRollout.empty(LAYOUT, last - first)
    for k, values in enumerate(rollout.columns.values()):
        values[:] = np.arange(first, last)[:, None] + np.arange(values.shape[1]) / 100 + 0.001 * k
    return rollout
