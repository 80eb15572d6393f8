"""Moved: `rllib_maddpg.sampling.exploration`."""

from rllib_maddpg.sampling.exploration import *  # noqa: F403
