"""Moved: `rllib_maddpg.plotting.curves`."""

from rllib_maddpg.plotting.curves import *  # noqa: F403
