"""Joint transitions: their blocks, the buffer that keeps them, and the way from RLlib's episodes."""

from rllib_maddpg.replay.buffer import JointReplayBuffer
from rllib_maddpg.replay.episodes import rollout_from_episodes
from rllib_maddpg.replay.rollout import COLUMNS, JointRollout

__all__ = ["COLUMNS", "JointReplayBuffer", "JointRollout", "rollout_from_episodes"]
