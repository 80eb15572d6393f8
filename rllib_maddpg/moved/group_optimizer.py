"""Moved: `rllib_maddpg.learning.group_optimizer`."""

from rllib_maddpg.learning.group_optimizer import *  # noqa: F403
