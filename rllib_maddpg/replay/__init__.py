"""The replay buffer D of Algorithm 1: one ring, shards of it in actors, or a class of the user's."""

from rllib_maddpg.replay.buffer import JointReplayBuffer
from rllib_maddpg.replay.prioritized import PrioritizedJointReplayBuffer
from rllib_maddpg.replay.protocol import JointReplay, Stored
from rllib_maddpg.rows.rollout import JointRollout

__all__ = ["JointReplay", "JointReplayBuffer", "JointRollout", "PrioritizedJointReplayBuffer", "Stored"]
