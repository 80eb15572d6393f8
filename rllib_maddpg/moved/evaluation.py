"""Moved: `rllib_maddpg.runs.evaluation`."""

from rllib_maddpg.runs.evaluation import *  # noqa: F403
