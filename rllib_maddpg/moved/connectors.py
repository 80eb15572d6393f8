"""Moved: `rllib_maddpg.sampling.connectors`."""

from rllib_maddpg.sampling.connectors import *  # noqa: F403
