"""Moved: `rllib_maddpg.sampling.flatten_connector`."""

from rllib_maddpg.sampling.flatten_connector import *  # noqa: F403
