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
        self._philox = np.random.Philox(0)
        self._generator = np.random.Generator(self._philox)
        self._start = self._philox.state

    def draw(self, key: int, number: int, sizes: Sequence[int], learners: int, rows: int) -> np.ndarray:
        """`[learners, shards]`, int64: `rows` for each Learner."""
        self._start["state"]["key"][:] = key % 2**64, 0
        self._start["state"]["counter"][:] = 0, 0, 0, number
        self._philox.state = self._start
        left = self._generator.multinomial(learners * rows, np.array(sizes) / sum(sizes))
        shares = np.empty((learners, len(sizes)), np.int64)
        for k in range(learners - 1):
            # Which of them are this Learner's: as drawn from an urn.
            shares[k] = self._generator.multivariate_hypergeometric(left, rows)
            left -= shares[k]
        shares[-1] = left
        return shares
