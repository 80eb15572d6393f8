"""Moved: `rllib_maddpg.config.agent_mapping`."""

from rllib_maddpg.config.agent_mapping import *  # noqa: F403
