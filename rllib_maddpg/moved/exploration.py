"""Moved: `rllib_maddpg.sampling.exploration`."""

from rllib_maddpg.sampling.exploration import *  # noqa: F403
from rllib_maddpg.sampling.noise import NOISES

NOISE_TYPES = tuple(NOISES)
