"""Moved: `rllib_maddpg.algorithm.tunable`."""

from rllib_maddpg.algorithm.tunable import *  # noqa: F403
