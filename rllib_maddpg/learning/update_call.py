"""A call of a Learner's `update`, which may be several updates. No Ray here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rllib_maddpg.rows.joint_batch import JointBatch


@dataclass
class UpdateCall:
    """Updates that are made one after the other.

    Attributes:
        rows: Of all of them, on the Learner's device.
        step: Rows of each; the last one may have fewer.
        timesteps: As `update` was given them.
        keeps_metrics: Whether metrics are kept back for a later call.
        made: Updates that have been made.
    """

    rows: JointBatch
    step: int
    timesteps: dict[str, Any]
    keeps_metrics: bool = False
    made: int = 0

    @property
    def updates_left(self) -> int:
        """How many are still to be made."""
        return math.ceil(len(self.rows) / self.step) - self.made

    @property
    def next_rows(self) -> int:
        """How many rows the next one has."""
        return min(self.step, len(self.rows) - self.made * self.step)

    @property
    def minibatch(self) -> JointBatch:
        """The rows of the next one."""
        start = self.made * self.step
        return self.rows.rows(slice(start, start + self.step)) if self.step < len(self.rows) else self.rows
