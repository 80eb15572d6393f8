"""Rows of a tensor that are given out and taken back one by one, whose memory grows and shrinks with their number."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rllib_maddpg.replay.upload import RingUpload

# It has no fewer; and it shrinks when less than a quarter of its slots are taken.
_LEAST = 16


class RowPool:
    """Some rows of words, each in a slot.

    Attributes:
        words: All slots, int32 `[slots, width]`, on the device; another tensor when their number has changed.
    """

    def __init__(self, width: int, device: torch.device, upload: RingUpload):
        """
        Args:
            width: Words of a row.
            device: Where the rows lie.
            upload: Brings numbers there.
        """
        self._device, self._upload = device, upload
        self.words = self._zeros(_LEAST, width)
        self._free = list(range(_LEAST))[::-1]

    def __len__(self) -> int:
        """Slots that are taken."""
        return len(self.words) - len(self._free)

    @property
    def is_sparse(self) -> bool:
        """Whether so few slots are taken that `keep` should be called."""
        return len(self.words) > _LEAST and len(self) < len(self.words) // 4

    def put(self, rows: np.ndarray) -> np.ndarray:
        """Gives out a slot for each row, int32 `[n, width]`, and writes the rows there.

        Returns:
            The slots, int64 `[n]`.
        """
        if len(self._free) < len(rows):
            self._grow(len(rows) - len(self._free))
        slots = np.array([self._free.pop() for _ in rows], np.int64)
        if len(slots):
            self.words[self._upload.there(torch.from_numpy(slots))] = self._upload.there(torch.from_numpy(rows))
        return slots

    def free(self, slots: np.ndarray) -> None:
        """Takes slots back."""
        self._free += slots.tolist()

    def keep(self, slots: np.ndarray) -> None:
        """Has the rows in these slots, all that are taken, in the slots 0, 1, 2, ..., and gives memory back."""
        rows = self.words.index_select(0, self._upload.there(torch.from_numpy(slots)))
        self.words = self._zeros(max(_LEAST, 2 * len(slots)), self.words.shape[1])
        self.words[: len(slots)] = rows
        self._free = list(range(len(slots), len(self.words)))[::-1]

    def _grow(self, least: int) -> None:
        old = self.words
        self.words = self._zeros(len(old) + max(least, len(old) // 2), old.shape[1])
        self.words[: len(old)] = old
        self._free = [*range(len(old), len(self.words))][::-1] + self._free

    def _zeros(self, slots: int, width: int) -> Tensor:
        if self._device.type == "cpu":
            return torch.from_numpy(np.zeros((slots, width), np.int32))  # takes memory only as rows are written
        return torch.zeros(slots, width, dtype=torch.int32, device=self._device)
