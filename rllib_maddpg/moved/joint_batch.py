"""Moved: `rllib_maddpg.rows.joint_batch`."""

from rllib_maddpg.rows.joint_batch import *  # noqa: F403
