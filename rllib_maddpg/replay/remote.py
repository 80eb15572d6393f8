"""What stands for rows that lie in other processes: rollouts at their runner, batches in the shards of a replay buffer."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayError
from torch import Tensor

from rllib_maddpg.rows.counter_random import random_bits
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import RowSchema

logger = logging.getLogger(__name__)

# The warning where a rollout cannot be fetched any more.
LOST = "A fragment is lost with the env runner that had sampled it; its env steps are not counted."


class RemoteRollout:
    """A rollout that stays with the runner that sampled it until a shard of the replay buffer fetches it.

    Attributes:
        rows: Reference to the `JointRollout`.
        worker_index, episode_numbers, error: As in the `JointRollout`.
    """

    def __init__(self, rollout: JointRollout):
        self.rows = ray.put(rollout)
        self.worker_index, self.episode_numbers, self.error = rollout.worker_index, rollout.episode_numbers, rollout.error
        self._len, self._env_steps = len(rollout), rollout.env_steps()

    def __len__(self) -> int:
        return self._len

    def env_steps(self) -> int:
        """As of the `JointRollout`."""
        return self._env_steps


class ShardedBatch:
    """A batch of joint rows that lie in several shards; whoever needs them fetches them.

    Attributes:
        refs: For each of K shards a reference to its rows `[rows, row_width]`, float32, those of each part side by side; None
            if it has none.
        counts: `[parts, K]`: rows of each part that come from each shard. All parts have the same number of rows.
        seed: Of the order of the rows within each part, `[parts]`, int64; None: those of a shard side by side. A single number:
            as earlier versions ordered them.
    """

    def __init__(self, refs: list[ray.ObjectRef | None], counts: np.ndarray, seed: np.ndarray | int | None = None):
        self.refs, self.counts, self.seed = refs, counts, seed

    def __len__(self) -> int:
        return int(self.counts.sum())

    def to(self, device: torch.device, schema: RowSchema) -> JointBatch:
        """Fetches the rows, onto a device; errors as in `gather`."""
        return JointBatch(schema, self.gather().to(device))

    def gather(self) -> Tensor:
        """Fetches the rows: `[parts * rows, row_width]`, part by part.

        The rows of a shard that has died meanwhile are replaced by rows of the others, which are drawn from the same episodes
        as its own; all Learners can go on so.

        Raises:
            RuntimeError: If none of the shards answers.
        """
        pieces = _fetch(self.refs)
        # Those that are there may have no row for this Learner.
        there = [piece for piece in pieces if piece is not None and len(piece)]
        if not there:
            raise RuntimeError("None of the replay buffer's shards that rows were to be drawn from is there any more.")
        at = self._places()
        rows = np.empty((len(at), there[0].shape[1]), np.float32)
        missing = []
        for piece, places in zip(pieces, self.split(np.arange(len(at)), at), strict=True):
            if piece is None:
                missing.append(places)
            else:
                rows[places] = piece
        lost = np.concatenate(missing) if missing else np.arange(0)
        if len(lost):
            known = np.setdiff1d(at, lost)
            rows[lost] = rows[np.resize(known, len(lost))]
        return torch.from_numpy(rows)

    def split(self, values: np.ndarray, at: np.ndarray | None = None) -> list[np.ndarray]:
        """What belongs to the rows of each shard, in the order in which it has drawn them.

        Args:
            values: A number for each row of the batch.
            at: What `_places` returns, if it is known.
        """
        at = self._places() if at is None else at
        return np.split(values[at], np.cumsum(self.counts.sum(0))[:-1])

    def _places(self) -> np.ndarray:
        """For the rows of all shards, one shard after the other, their place in the batch."""
        parts, shards = self.counts.shape
        part_of = np.concatenate([np.repeat(np.arange(parts), self.counts[:, k]) for k in range(shards)])
        order = np.argsort(part_of, kind="stable")
        if isinstance(self.seed, np.ndarray):
            order = order.reshape(parts, -1)
            chance = random_bits(0, self.seed[:, None], np.arange(order.shape[1]))
            order = np.take_along_axis(order, np.argsort(chance, axis=1), axis=1).ravel()
        elif self.seed is not None:
            order = np.lexsort((np.random.default_rng(self.seed).random(len(part_of)), part_of))
        places = np.empty(len(part_of), np.int64)
        places[order] = np.arange(len(part_of))
        return places


def _fetch(refs: list[ray.ObjectRef | None]) -> list[Any]:
    """What the references stand for; None for those that are lost."""
    asked = [ref for ref in refs if ref is not None]
    try:
        found = iter(ray.get(asked))
    except RayError:
        found = iter([_fetch_one(ref) for ref in asked])
    return [None if ref is None else next(found) for ref in refs]


def _fetch_one(ref: ray.ObjectRef) -> Any:
    try:
        return ray.get(ref)
    except RayError as error:
        logger.warning("Rows of a batch are replaced by others, because the shard that had them died: %s", error)
        return None
