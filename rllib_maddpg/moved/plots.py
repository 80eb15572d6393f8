"""Moved: `rllib_maddpg.plotting.plots`."""

from rllib_maddpg.plotting.plots import *  # noqa: F403
