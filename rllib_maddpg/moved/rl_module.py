"""Moved: `rllib_maddpg.modules.rl_module`."""

from rllib_maddpg.modules.rl_module import *  # noqa: F403
