"""Moved: `rllib_maddpg.rows.actions`."""

from rllib_maddpg.rows.actions import *  # noqa: F403
