"""Moved: `rllib_maddpg.algorithm.maddpg`."""

from rllib_maddpg.algorithm.maddpg import *  # noqa: F403
