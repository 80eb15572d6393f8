"""Moved: `rllib_maddpg.runs.run`."""

from rllib_maddpg.runs.run import *  # noqa: F403
