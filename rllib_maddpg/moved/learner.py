"""Moved: `rllib_maddpg.learning.learner`."""

from rllib_maddpg.learning.learner import *  # noqa: F403
