"""Moved: `rllib_maddpg.algorithm.registration`."""

from rllib_maddpg.algorithm.registration import *  # noqa: F403
