"""Moved: `rllib_maddpg.algorithm.joint_algorithm`."""

from rllib_maddpg.algorithm.joint_algorithm import *  # noqa: F403
