"""Where a replay buffer is in its random numbers, which are a pure function of its seed and of the number of an update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rllib_maddpg.rows.counter_random import key_of, random_bits

# Where a state has them; those of earlier versions do not.
KEY, NUMBER = "stream_key", "num_updates_drawn"


class UpdateStream:
    """A stream of random numbers with a part for each update.

    Attributes:
        key: None: NumPy's generator goes on instead, from the state of an earlier version.
        number: Of the next update: so many have been drawn.
    """

    def __init__(self, seed: Any, name: str):
        self.key: int | None = key_of(seed, name)
        self.number = 0
        self._own_key = self.key

    def next(self, updates: int) -> int:
        """The number of the first of the next updates, which are counted."""
        first, self.number = self.number, self.number + updates
        return first

    def bits(self, first: int, updates: int, elements: int) -> np.ndarray:
        """Random bits of 0 ... `elements - 1` for each of the updates from number `first` on: `[updates, elements]`, int64."""
        numbers = first if updates == 1 else np.arange(first, first + updates)[:, None]
        return random_bits(self.key, numbers, np.arange(elements)).reshape(updates, elements)

    def get_state(self) -> dict[str, int]:
        """Key and number for the state of a buffer; nothing while NumPy's generator goes on."""
        return {} if self.key is None else {KEY: self.key, NUMBER: self.number}

    def set_state(self, state: Mapping[str, Any], goes_on: bool = True) -> None:
        """Goes on as the buffer of that state would have.

        Args:
            state: Of a buffer.
            goes_on: False: only its number does, with another key; for a buffer of other parts.
        """
        self.key = state.get(KEY) if goes_on else self._own_key
        self.number = state.get(NUMBER, 0)
