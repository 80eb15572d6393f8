"""A sum tree: numbers, and the sums over blocks of them, by which places are drawn in proportion to the numbers.

Numbers are whole, so that sums are exact in any order: a tree that is rebuilt, on whatever device, is the same to the bit,
and nothing with the number 0 is ever drawn.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

# Nodes of a block. Wide ones make few levels, and few operations, each on many numbers at once; but a block of a million
# numbers must be fetched from memory.
WIDTH = 16
# The top level has no blocks above it: its running sums are made at each draw.
MOST_AT_TOP = 2**14


class SumTree:
    """Whole numbers >= 0 at some places.

    Attributes:
        most: The largest number that each may be, so that no sum is too large for an int64.
    """

    def __init__(self, places: int, device: torch.device):
        """
        Args:
            places: How many.
            device: Where the tree lies.
        """
        self.most = 2**62 // places
        sizes = [places]
        while sizes[-1] > MOST_AT_TOP:
            sizes.append(-(-sizes[-1] // WIDTH))
        # Whole blocks, below the top.
        padded = [-(-size // WIDTH) * WIDTH for size in sizes[:-1]] + sizes[-1:]
        self._levels = [_zeros(size, device) for size in padded]

    @property
    def total(self) -> Tensor:
        """The sum of all numbers, int64 without dimensions."""
        return self._levels[-1].sum()

    def __getitem__(self, places: Tensor) -> Tensor:
        """The numbers at these places, int64."""
        return self._levels[0][places]

    def set(self, places: Tensor, numbers: Tensor) -> None:
        """Sets the numbers at places, both int64 `[B]`; a place that comes twice has to get the same number."""
        self._levels[0][places] = numbers
        for below, above in pairwise(self._levels):
            places = places // WIDTH
            above[places] = below.view(-1, WIDTH).index_select(0, places).sum(-1)

    def clear(self) -> None:
        """Sets all to 0."""
        for level in self._levels:
            level.zero_()

    def draw(self, fractions: Tensor) -> Tensor:
        """Draws places: where the running sum of all numbers passes these fractions of the total.

        Args:
            fractions: In [0, 1), float64 `[B]`.

        Returns:
            int64 `[B]`, on the tree's device.
        """
        nodes, sums = self._levels[-1], self._levels[-1].cumsum(0)
        total = sums[-1]
        # The product is rounded, perhaps to the total itself.
        left = torch.minimum((fractions * total).long(), total - 1)
        found = torch.searchsorted(sums, left, right=True)
        left = left - (sums[found] - nodes[found])
        for level in self._levels[-2::-1]:
            block = level.view(-1, WIDTH).index_select(0, found)
            sums = block.cumsum(-1)
            child = torch.searchsorted(sums, left.unsqueeze(-1), right=True)
            left = left - (sums.gather(-1, child) - block.gather(-1, child)).squeeze(-1)
            found = found * WIDTH + child.squeeze(-1)
        return found


def _zeros(size: int, device: torch.device) -> Tensor:
    # NumPy's take memory only where something is written.
    zeros = torch.from_numpy(np.zeros(size, np.int64))
    return zeros if device.type == "cpu" else zeros.to(device)
