"""Moved: `rllib_maddpg.rows.observations`."""

from rllib_maddpg.rows.observations import *  # noqa: F403
