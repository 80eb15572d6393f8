"""Moved: `rllib_maddpg.algorithm.saving`."""

from rllib_maddpg.algorithm.saving import *  # noqa: F403
