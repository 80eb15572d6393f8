"""Fills a ring of images in a process of its own: prints what was announced, and how its resident memory grew."""

import gc
import sys

import gymnasium as gym
import numpy as np
import psutil

from rllib_maddpg.replay import JointReplayBuffer
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import RowSchema

FRAGMENT, SHAPE = 25, (84, 84, 1)


def fill(ring, fragments, length):
    """Fragments of one env, whose episodes have a number of steps."""
    images = np.random.default_rng(0).integers(0, 256, (64, 7056), np.uint8)
    rollout = JointRollout.empty(ring.schema, FRAGMENT)
    columns = rollout.columns
    for k in range(fragments):
        steps = k * FRAGMENT + np.arange(FRAGMENT)
        columns["episodes"][:, 0], columns["t"][:, 0] = divmod(steps, length)
        columns["obs"][:], columns["new_obs"][:] = images[steps % 64], images[(steps + 1) % 64]
        ring.add(rollout)


def growth(schema, rows, length):
    """Of the resident memory with a ring that has been filled twice: what was overwritten has gone."""
    gc.collect()
    before = psutil.Process().memory_info().rss
    ring = JointReplayBuffer(schema, rows)
    fill(ring, 2 * rows // FRAGMENT, length)
    gc.collect()
    assert len(ring) == rows
    return psutil.Process().memory_info().rss - before


if __name__ == "__main__":
    rows, *lengths = map(int, sys.argv[1:])
    observed = {"a": gym.spaces.Box(0, 255, SHAPE, np.uint8)}
    vectors = {"a": gym.spaces.Box(0, 255, (7056,), np.float32)}
    schema = RowSchema(JointLayout(vectors, {"a": gym.spaces.Discrete(4)}, str, observed=observed))
    growth(schema, 100, 10)  # what the first use of the code takes is none of the rows' memory
    print(schema.bytes_per_kept_row * rows, *(growth(schema, rows, length) for length in lengths))
