"""Moved: `rllib_maddpg.results.run_folder`."""

from rllib_maddpg.results.run_folder import *  # noqa: F403
