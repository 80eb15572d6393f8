"""Moved: `rllib_maddpg.sampling.noise_connector`."""

from rllib_maddpg.sampling.noise_connector import *  # noqa: F403
