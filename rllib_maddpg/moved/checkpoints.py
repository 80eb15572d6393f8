"""Moved: `rllib_maddpg.algorithm.checkpoints`."""

from rllib_maddpg.algorithm.checkpoints import *  # noqa: F403
