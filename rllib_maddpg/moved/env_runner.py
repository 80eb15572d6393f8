"""Moved: `rllib_maddpg.sampling.env_runner`."""

from rllib_maddpg.sampling.env_runner import *  # noqa: F403
