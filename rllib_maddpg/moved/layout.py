"""Moved: `rllib_maddpg.rows.layout`."""

from rllib_maddpg.rows.layout import *  # noqa: F403
