"""Moved: `rllib_maddpg.config.config_file`."""

from rllib_maddpg.config.config_file import *  # noqa: F403
