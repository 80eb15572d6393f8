"""Moved: `rllib_maddpg.learning.losses`."""

from rllib_maddpg.learning.losses import *  # noqa: F403
