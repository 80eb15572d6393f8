"""The newest rows of a replay buffer, which go to the Learners beside those that were drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.schema import RowSchema


class BatchWithNewest:
    """A drawn batch, of whatever kind, and a Learner's share of the newest rows.

    Attributes:
        drawn: What `JointReplay.draw` returned for a Learner.
        newest: The rows.
    """

    def __init__(self, drawn: Any, newest: JointBatch):
        self.drawn, self.newest = drawn, newest

    def __len__(self) -> int:
        return len(self.drawn)

    def to(self, device: torch.device, schema: RowSchema) -> JointBatch:
        """The drawn rows on a device, with the newest ones as their `newest`."""
        batch = self.drawn.to(device, schema)
        batch.newest = self.newest.to(device, schema)
        return batch


def with_newest(batches: Sequence[Any], newest: JointBatch) -> list[Any]:
    """Gives each of several Learners' batches its share of the newest rows, all shares of one size.

    Where there is less than one row for each, because those of a shard are away, the batches stay as they are.
    """
    rows = len(newest) // len(batches)
    if not rows:
        return list(batches)
    first = len(newest) - rows * len(batches)  # the oldest are left out
    shares = [newest.rows(slice(first + k * rows, first + (k + 1) * rows)) for k in range(len(batches))]
    return [BatchWithNewest(batch, share) for batch, share in zip(batches, shares, strict=True)]
