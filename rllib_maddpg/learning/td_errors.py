"""TD errors of single rows, for a replay buffer that draws by them. No Ray here."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class TDErrors:
    """Mean and largest |TD error| of the acting agents in each row of several batches, one after the other."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []

    def add(self, sums: Tensor) -> None:
        """Adds those of the next batch.

        Args:
            sums: Of each row the sum of |TD error| over the acting agents, the number of these agents, and the largest error,
                `[3, B]`.
        """
        # Whoever computed them may overwrite them in the next update.
        self._sums.append(sums.clone())

    def take(self, largest: bool = False) -> np.ndarray:
        """The errors of all rows, the mean of the agents' or the largest one, float32; 0 where nobody acts that learns."""
        if not self._sums:
            return np.zeros(0, np.float32)
        sums, agents, most = torch.cat(self._sums, -1).float()
        errors = most if largest else sums / agents.clamp(min=1.0)
        return torch.nan_to_num(errors, 0.0, 0.0, 0.0).cpu().numpy()

    def clear(self) -> None:
        """Forgets all."""
        self._sums = []
