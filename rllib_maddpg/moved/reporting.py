"""Moved: `rllib_maddpg.runs.reporting`."""

from rllib_maddpg.runs.reporting import *  # noqa: F403
