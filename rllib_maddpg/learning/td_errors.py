"""TD errors of single rows, for a replay buffer that draws by them. No Ray here."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rllib_maddpg.rows.joint_batch import JointBatch


class TDErrors:
    """Mean |TD error| of the living agents in each row of several batches, one after the other."""

    def __init__(self) -> None:
        self._batch: JointBatch | None = None
        self._sums: list[Tensor] = []  # of each batch the sum of errors and the number of agents, [2, B]

    def add(self, batch: JointBatch, rows: slice, errors: Tensor, agents: Tensor) -> None:
        """Adds what some modules' critics say.

        Args:
            batch: All rows of the update.
            rows: Those that are meant.
            errors: Sum of |TD error| over the modules' living agents, `[rows]`.
            agents: Number of these agents, `[rows]`.
        """
        if batch is not self._batch:
            self._batch = batch
            self._sums.append(errors.new_zeros(2, len(batch)))
        self._sums[-1][:, rows] += torch.stack([errors, agents])

    def take(self) -> np.ndarray:
        """The errors of all rows, float32; 0 where nobody is alive."""
        if not self._sums:
            return np.zeros(0, np.float32)
        errors, agents = torch.cat(self._sums, -1)
        return (errors / agents.clamp(min=1.0)).float().cpu().numpy()

    def clear(self) -> None:
        """Forgets all."""
        self._batch, self._sums = None, []
