"""Moved: `rllib_maddpg.sampling.recording`."""

from rllib_maddpg.sampling.recording import *  # noqa: F403
