"""Moved: `rllib_maddpg.modules.critics`."""

from rllib_maddpg.modules.critics import *  # noqa: F403
