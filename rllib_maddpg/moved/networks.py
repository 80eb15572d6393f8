"""Moved: `rllib_maddpg.modules.networks`."""

from rllib_maddpg.modules.networks import *  # noqa: F403
