"""TD errors of single rows, for a replay buffer that draws by them. No Ray here."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class TDErrors:
    """Mean |TD error| of the living agents in each row of several batches, one after the other."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []  # of each batch the sum of errors and the number of agents, [2, B]

    def begin(self, rows: int, device: torch.device) -> None:
        """The next batch has so many rows, also if nobody learns from them."""
        self._sums.append(torch.zeros(2, rows, device=device))

    def add(self, rows: slice, errors: Tensor, agents: Tensor) -> None:
        """Adds what some modules' critics say.

        Args:
            rows: Those of the batch that are meant.
            errors: Sum of |TD error| over the modules' living agents, `[rows]`.
            agents: Number of these agents, `[rows]`.
        """
        self._sums[-1][:, rows] += torch.stack([errors, agents])

    def take(self) -> np.ndarray:
        """The errors of all rows, float32; 0 where nobody is alive that learns."""
        if not self._sums:
            return np.zeros(0, np.float32)
        errors, agents = torch.cat(self._sums, -1)
        return torch.nan_to_num(errors / agents.clamp(min=1.0), 0.0, 0.0, 0.0).cpu().numpy()

    def clear(self) -> None:
        """Forgets all."""
        self._sums = []
