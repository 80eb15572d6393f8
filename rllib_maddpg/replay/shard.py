"""One shard of a replay buffer: a ring in an actor."""

from __future__ import annotations

from typing import Any

import numpy as np
import ray

from rllib_maddpg.replay.buffer import JointReplayBuffer
from rllib_maddpg.replay.protocol import Stored
from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import RowSchema


class ReplayShard:
    """One shard: a `JointReplayBuffer` in an actor."""

    buffer_class = JointReplayBuffer

    def __init__(self, schema: RowSchema, capacity: int, seed: np.random.SeedSequence | None, **arguments: Any):
        # Rebuilt after its machine was lost, it must not draw as it did at first.
        restarted = ray.get_runtime_context().was_current_actor_reconstructed
        self.buffer = self.buffer_class(schema, capacity, None if restarted else seed, **arguments)

    def store(self, *rollouts: JointRollout) -> tuple[list[Stored], int]:
        """What became of the rollouts, and the number of rows in this shard."""
        return self.buffer.store(rollouts), len(self.buffer)

    def draw(self, first: int, counts: np.ndarray) -> Any:
        """Rows of the updates from number `first` on.

        Args:
            first: Number of an update.
            counts: `[learners, updates]`, rows of this shard.

        Returns:
            For each Learner `[rows, row_width]`, float32, those of each update side by side; without the list for a single one.
        """
        drawn = [self.buffer.rows_at(places).joint_rows.numpy() for places in self._places(first, counts)]
        return drawn if len(drawn) > 1 else drawn[0]

    def _places(self, first: int, counts: np.ndarray) -> list[np.ndarray]:
        if self.buffer.stream.key is None:
            return [self.buffer.choose(rows) for rows in counts.sum(1).tolist()]
        # Of an update's places the first ones are the first Learner's, and so on: the same for any number of Learners.
        ends = counts.cumsum(0)[:, :, None]
        places = self.buffer.places_of(first, counts.shape[1], int(ends.max()))
        at = np.arange(places.shape[1])
        return [places[(end - own <= at) & (at < end)] for own, end in zip(counts[:, :, None], ends, strict=True)]

    def latest(self, rows: int) -> np.ndarray:
        """The newest rows of this shard, oldest first, `[rows, row_width]`, float32."""
        return self.buffer.latest(rows).joint_rows.numpy()

    def size(self) -> int:
        """Rows held now."""
        return len(self.buffer)

    def get_state(self) -> dict[str, Any]:
        """As `JointReplayBuffer.get_state`."""
        return self.buffer.get_state()

    def set_state(self, state: dict[str, Any]) -> int:
        """As `JointReplayBuffer.set_state`; returns the number of rows held now."""
        self.buffer.set_state(state)
        return len(self.buffer)
