"""Moved: `rllib_maddpg.learning.groups`."""

from rllib_maddpg.learning.groups import *  # noqa: F403
