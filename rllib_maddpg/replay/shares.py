"""How many rows of an update come from which shard of a replay buffer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class ShardShares:
    """How many rows of an update come from which shard, drawn as if all rows lay side by side.

    A pure function of a key, the number of the update, and the sizes of the shards. The sums over all Learners are the same
    for any number of them.
    """

    def __init__(self) -> None:
        self._philox = np.random.Philox(key=0)
        self._generator = np.random.Generator(self._philox)
        self._start = self._philox.state

    def draw(self, key: int, first: int, updates: int, sizes: Sequence[int], learners: int, rows: int) -> np.ndarray:
        """For the updates from number `first` on, `rows` for each Learner: `[learners, updates, shards]`, int64."""
        shares = np.empty((learners, updates, len(sizes)), np.int64)
        chances = np.array(sizes) / sum(sizes)
        state = self._start["state"]
        state["key"][0] = key % 2**64
        for update in range(updates):
            state["counter"][-1] = first + update
            self._philox.state = self._start
            left = self._generator.multinomial(learners * rows, chances)
            for k in range(learners - 1):
                # Which of them are this Learner's: as drawn from an urn.
                shares[k, update] = self._generator.multivariate_hypergeometric(left, rows)
                left -= shares[k, update]
            shares[-1, update] = left
        return shares
