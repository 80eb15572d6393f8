"""Moved: `rllib_maddpg.modules.rule_modules`."""

from rllib_maddpg.modules.rule_modules import *  # noqa: F403
