"""Moved: `rllib_maddpg.learning.joint_learner`."""

from rllib_maddpg.learning.joint_learner import *  # noqa: F403
