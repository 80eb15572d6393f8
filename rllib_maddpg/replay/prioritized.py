"""Prioritized replay of joint rows (Schaul et al. 2016, "Prioritized Experience Replay", the proportional variant)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from ray.rllib.utils.annotations import override
from torch import Tensor

from rllib_maddpg.replay.buffer import JointReplayBuffer
from rllib_maddpg.replay.protocol import JointReplay
from rllib_maddpg.replay.resharding import BESIDE, LARGEST, PRIORITIES
from rllib_maddpg.replay.sum_tree import SumTree
from rllib_maddpg.rows.counter_random import fraction
from rllib_maddpg.rows.drawn_columns import WEIGHTS
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import RowSchema

# Added to |TD error|, so that every row may be drawn again.
EPSILON = 1e-6
# Of the whole numbers of a `SumTree`.
UNIT = 2.0**-22
AGENTS = ("mean", "max")


class PrioritizedJointReplayBuffer(JointReplayBuffer):
    """A `JointReplayBuffer` that draws row i with probability P(i) = p_i^alpha / sum_k p_k^alpha, with replacement.

    - p_i is |TD error| + 1e-6 of when the row was learned from last, over its agents the mean or the largest one. New rows
      have the largest priority that there was so far, at first 1.
    - Rows have a column `weights`, (N P(i))^-beta for N rows held. Learners divide it by the largest one of an update, and
      losses are means of weighted terms.
    - Updates whose rows are drawn in one call (several updates in a fragment) have the priorities of its start.
    - With `minibatch_per_module` a row's error is that of the one module it was drawn for. Where none of that module's agents
      lives, or the module does not learn, it tells nothing, and the priority stays: the row may teach others.
    - Which rows an update gets is a pure function of the seed, the number of the update and the priorities.
    - p^alpha is kept as a whole number of 2^-22, of at most 2^62 / capacity.

    Attributes:
        alpha, beta: Of the probabilities and the weights.
        feedback_of: "mean" or "max".
        largest: The largest priority so far.
    """

    wants_feedback = True
    weighs_rows = True

    def __init__(
        self,
        schema: RowSchema,
        capacity: int = 1_000_000,
        seed: Any = None,
        device: str = "cpu",
        alpha: float = 0.6,
        beta: float = 0.4,
        priority: str = "mean",
    ):
        """
        Args:
            schema, capacity, seed, device: As of `JointReplayBuffer`.
            alpha: How far priorities count, in [0, 1]; 0: not at all.
            beta: How far weights make up for it, in [0, 1]; 1: wholly.
            priority: Of the agents' errors in a row the "mean" or the "max".
        """
        super().__init__(schema, capacity, seed, device)
        self.alpha, self.beta, self.feedback_of = float(alpha), float(beta), priority
        self.largest = 1.0
        self._priorities = np.zeros(self.capacity, np.float32)
        self._tree = SumTree(self.capacity, self.device)
        self._own_key = self.stream.key
        self._drawn = torch.zeros(0, 1, 0, dtype=torch.int64)  # [updates, learners, rows]
        self._shared_out = False  # of the last draw, among modules

    @classmethod
    @override(JointReplay)
    def check(cls, settings: Mapping[str, Any]) -> None:
        check_prioritized(settings)

    # ------------------------------------------------------------------------------------------ rows

    @override(JointReplayBuffer)
    def add(self, rollout: JointRollout) -> None:
        super().add(rollout)
        rows = min(len(rollout), self.capacity)
        places = (self.next_place - rows + np.arange(rows)) % self.capacity
        self._priorities[places] = self.largest
        self._write_tree(places)

    @override(JointReplayBuffer)
    def draw(self, learners: int, updates: int, rows: int, shuffled: bool = False) -> list[JointBatch]:
        """Rows drawn by their priorities, with weights; arguments as in `JointReplay.draw`."""
        self._check_filled()
        places = self._places(self.stream.next(updates), updates, learners * rows)
        self._drawn, self._shared_out = places.view(updates, learners, rows), shuffled
        batch = self.weighed_rows_at(places.flatten(), len(self) / self.total().double())
        return batch.shards(learners, rows) if learners > 1 else [batch]

    @override(JointReplayBuffer)
    def sample(self, num_rows: int) -> JointBatch:
        """Rows drawn by their priorities, with weights."""
        self._check_filled()
        places = self._places(self.stream.next(1), 1, num_rows).flatten()
        return self.weighed_rows_at(places, len(self) / self.total().double())

    @override(JointReplayBuffer)
    def places_of(self, first: int, updates: int, rows: int) -> np.ndarray:
        """As of `JointReplayBuffer`, by the priorities of now."""
        self._check_filled()
        return self._places(first, updates, rows).cpu().numpy()

    def _places(self, first: int, updates: int, rows: int) -> Tensor:
        fractions = torch.from_numpy(fraction(self.stream.bits(first, updates, rows).ravel()))
        return self._tree.draw(self._upload.there(fractions)).view(updates, rows)

    def weighed_rows_at(self, places: np.ndarray | Tensor, rows_per_number: float | Tensor) -> JointBatch:
        """The rows at these places, with weights.

        Args:
            places: int64 `[B]`.
            rows_per_number: N over the sum of all numbers in the tree, or in those of all shards.
        """
        places = self._upload.places(places)
        batch = self.rows_at(places)
        chances = self._tree[places].double() * rows_per_number
        # Not by `batch.columns`, which makes numbers of all images.
        self.schema.split(batch.joint_rows)[WEIGHTS].copy_(chances.pow_(-self.beta).unsqueeze(-1))
        return batch

    def total(self) -> Tensor:
        """The sum of p^alpha of all rows, in units of 2^-22, int64 without dimensions."""
        return self._tree.total

    @override(JointReplay)
    def feedback(self, errors: Sequence[np.ndarray]) -> None:
        updates, _, rows = self._drawn.shape
        told = np.stack([own.reshape(updates, rows) for own in what_is_told(errors, self._shared_out)], 1)
        self.set_errors(self._drawn.flatten().cpu().numpy(), told.ravel())

    def set_errors(self, places: np.ndarray, errors: np.ndarray) -> None:
        """Tells the |TD error| of rows; of a row that comes twice the later one holds, and one that is not finite does not.

        Args:
            places: int64 `[B]`.
            errors: `[B]`.
        """
        sound = np.isfinite(errors)
        if not sound.all():
            places, errors = places[sound], errors[sound]
        if not len(places):
            return
        self._priorities[places] = errors + np.float32(EPSILON)
        self.largest = max(self.largest, float(errors.max() + np.float32(EPSILON)))
        self._write_tree(places)

    def _write_tree(self, places: np.ndarray) -> None:
        numbers = np.rint(self._priorities[places].astype(np.float64) ** self.alpha / UNIT)
        numbers = np.clip(numbers, 1, self._tree.most).astype(np.int64)
        self._tree.set(self._upload.places(places), self._upload.there(torch.from_numpy(numbers)))

    # ------------------------------------------------------------------------------------------ checkpoints

    @override(JointReplayBuffer)
    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As of `JointReplayBuffer`, with the priorities of the rows, from which the tree is built again to the bit."""
        state = super().get_state(components, not_components=not_components, **kwargs)
        beside = {**state.get(BESIDE, {}), PRIORITIES: self._priorities[: len(self)].copy()}
        return {**state, BESIDE: beside, LARGEST: self.largest}

    @override(JointReplayBuffer)
    def _restore(self, state: Mapping[str, Any], order: np.ndarray) -> None:
        super()._restore(state, order)
        self.largest = float(state.get(LARGEST, 1.0))
        self._priorities[:] = 0.0
        kept = state.get(BESIDE, {}).get(PRIORITIES)
        self._priorities[: len(order)] = self.largest if kept is None else kept[order]
        self._tree.clear()
        self._write_tree(np.arange(len(order)))
        self._drawn = torch.zeros(0, 1, 0, dtype=torch.int64)
        if self.stream.key is None:  # of a version that drew by NumPy's generator
            self.stream.key = self._own_key

    @override(JointReplayBuffer)
    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        args, kwargs = super().get_ctor_args_and_kwargs()
        return args, {**kwargs, "alpha": self.alpha, "beta": self.beta, "priority": self.feedback_of}


def what_is_told(errors: Sequence[np.ndarray], shared_out: bool) -> list[np.ndarray]:
    """Errors as `JointReplay.feedback` gets them, with NaN where they say nothing of a row.

    Args:
        errors: Of each Learner.
        shared_out: Whether each row was drawn for one module: 0 means that nobody learned from it, and others might.
    """
    return [np.where(own == 0.0, np.float32(np.nan), own) if shared_out else own for own in errors]


def check_prioritized(settings: Mapping[str, Any]) -> None:
    """Refuses what is no setting of prioritized replay.

    Raises:
        ValueError: Naming key, value, and what is allowed.
    """
    for key, default in (("alpha", 0.6), ("beta", 0.4)):
        value = settings.get(key, default)
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1:
            zero = "draws uniformly" if key == "alpha" else "corrects nothing"
            raise ValueError(f"{key}={value!r} is no number in [0, 1]. 0 {zero}; Schaul et al. (2016) use {default}.")
    value = settings.get("priority", AGENTS[0])
    if value not in AGENTS:
        raise ValueError(f"priority={value!r} is not one of {list(AGENTS)}: of the agents' TD errors in a row.")
