"""The replay buffer D of Algorithm 1: one ring, or shards of it in actors."""

from rllib_maddpg.replay.buffer import JointReplayBuffer

__all__ = ["JointReplayBuffer"]
