"""Prioritized replay whose rows lie in actors, each with a tree of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ray.rllib.utils.annotations import override
from ray.rllib.utils.checkpoints import Checkpointable

from rllib_maddpg.replay.prioritized import PrioritizedJointReplayBuffer, check_prioritized, what_is_told
from rllib_maddpg.replay.protocol import JointReplay
from rllib_maddpg.replay.remote import ShardedBatch
from rllib_maddpg.replay.shard import ReplayShard
from rllib_maddpg.replay.sharded import ShardedReplayBuffer
from rllib_maddpg.rows.schema import RowSchema


class PrioritizedShard(ReplayShard):
    """One shard: a `PrioritizedJointReplayBuffer` in an actor."""

    buffer_class = PrioritizedJointReplayBuffer
    buffer: PrioritizedJointReplayBuffer

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._drawn: list[np.ndarray] = []  # of each Learner

    def total(self) -> int:
        """The sum of its numbers."""
        return int(self.buffer.total())

    def draw(self, first: int, counts: np.ndarray, rows_per_number: float) -> Any:
        """As of `ReplayShard`, by priorities and with weights.

        Args:
            first, counts: As there.
            rows_per_number: Rows of all shards over the sum of their numbers.
        """
        self._drawn = self._places(first, counts)
        drawn = [self.buffer.weighed_rows_at(places, rows_per_number).joint_rows.numpy() for places in self._drawn]
        return drawn if len(drawn) > 1 else drawn[0]

    def feedback(self, *errors: np.ndarray) -> None:
        """As of `JointReplay`, of the rows of this shard; nothing if it has been restarted since they were drawn."""
        for places, own in zip(self._drawn, errors, strict=False):
            if len(own):  # else it had no row in this draw, and knows those of an earlier one
                self.buffer.set_errors(places, own)


class PrioritizedShardedReplayBuffer(ShardedReplayBuffer):
    """A `ShardedReplayBuffer` whose rows are drawn as those of a `PrioritizedJointReplayBuffer`.

    How many rows of an update come from which shard is drawn by the sums of the shards' numbers p^alpha, so that every row is
    drawn with the same probability as if all lay side by side; its weight is that of all rows, too. A new row has the largest
    priority of its own shard.
    """

    wants_feedback = True
    weighs_rows = True
    shard_class = PrioritizedShard

    def __init__(
        self,
        schema: RowSchema,
        capacity: int,
        seed: int | None = None,
        num_shards: int = 1,
        alpha: float = 0.6,
        beta: float = 0.4,
        priority: str = "mean",
    ):
        """
        Args:
            schema, capacity, seed, num_shards: As of `ShardedReplayBuffer`.
            alpha, beta, priority: As of `PrioritizedJointReplayBuffer`.

        Raises:
            ValueError: If a machine cannot hold its share of the rows.
        """
        self.alpha, self.beta, self.feedback_of = float(alpha), float(beta), priority
        super().__init__(schema, capacity, seed, num_shards)
        self._totals = [0] * num_shards
        self._own_key = self._stream.key
        self._drawn: list[ShardedBatch] = []
        self._shared_out = False  # of the last draw, among modules

    @override(ShardedReplayBuffer)
    def _shard_arguments(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "beta": self.beta, "priority": self.feedback_of}

    @classmethod
    @override(JointReplay)
    def check(cls, settings: Mapping[str, Any]) -> None:
        super().check(settings)
        check_prioritized(settings)

    @override(ShardedReplayBuffer)
    def draw(self, learners: int, updates: int, rows: int, shuffled: bool = False) -> list[ShardedBatch]:
        """Rows drawn by their priorities, as references; arguments and errors as in `ShardedReplayBuffer.draw`."""
        # Answers come after all that was told before.
        self._totals = self._ask_all(lambda shard: shard.total.remote())
        if not any(self._totals):
            raise ValueError("The replay buffer is empty: sample from the environment before you train.")
        self._drawn, self._shared_out = super().draw(learners, updates, rows, shuffled), shuffled
        return self._drawn

    @override(ShardedReplayBuffer)
    def _chances(self) -> Sequence[int]:
        return self._totals

    @override(ShardedReplayBuffer)
    def _how_to_draw(self) -> tuple[Any, ...]:
        return (len(self) / sum(self._totals),)

    @override(JointReplay)
    def feedback(self, errors: Sequence[np.ndarray]) -> None:
        told = what_is_told(errors, self._shared_out)
        parts = [batch.split(own) for batch, own in zip(self._drawn, told, strict=True)]
        for k, shard in enumerate(self._shards):
            if k not in self._away:
                shard.feedback.remote(*[own[k] for own in parts])

    @override(Checkpointable)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._drawn = []
        if self._stream.key is None:  # of a version that drew by NumPy's generator
            self._stream.key = self._own_key

    @override(Checkpointable)
    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        args, kwargs = super().get_ctor_args_and_kwargs()
        return args, {**kwargs, **self._shard_arguments()}
