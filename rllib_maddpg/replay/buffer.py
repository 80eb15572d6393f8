"""The replay buffer D of Algorithm 1: a columnar ring of joint transitions."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import psutil
import ray
import torch
from ray.exceptions import ObjectLostError
from ray.rllib.utils.annotations import override
from ray.rllib.utils.checkpoints import Checkpointable
from torch import Tensor

from rllib_maddpg.replay.drawn_rows import DrawnRows
from rllib_maddpg.replay.links import EpisodeLinks
from rllib_maddpg.replay.next_observations import NextObservations
from rllib_maddpg.replay.protocol import JointReplay, Stored
from rllib_maddpg.replay.remote import LOST, RemoteRollout
from rllib_maddpg.replay.resharding import AHEAD, ALONE, BESIDE, FOLLOWERS, NEW_OBS, merged, next_obs_of, num_rows
from rllib_maddpg.replay.state_check import SCHEMA, check_buffer_state
from rllib_maddpg.replay.update_stream import UpdateStream
from rllib_maddpg.replay.upload import RingUpload
from rllib_maddpg.rows.counter_random import below
from rllib_maddpg.rows.drawn_columns import most_steps
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import RowSchema, views

logger = logging.getLogger(__name__)

# What else to do where rows of images are too large.
SMALLER_IMAGES = (
    ", or make the images smaller by SuperSuit's `color_reduction_v0` and `resize_v1`: "
    "env_config={'wrappers': [['color_reduction_v0', {'mode': 'full'}], ['resize_v1', {'x_size': 42, 'y_size': 42}]]}"
)


class JointReplayBuffer(JointReplay):
    """Ring of joint transitions, sampled uniformly with replacement.

    Rows are never taken apart: one index draws the observations, actions and rewards of all agents at one env step.
    A subclass that draws otherwise overrides `choose`; one that has to know where rows lie reads `next_place` in `add`.

    Which rows an update gets is a pure function of the seed, of how many updates were drawn before, and of how many rows are
    held (`places_of`): the same on every device, for any number of Learners that share its rows, and whether its rows are drawn
    by themselves or with those of others.

    Where the schema has columns of n steps, rows are drawn with what came after them in their episodes (`DrawnRows`).
    Observations that are images of bytes are kept once (`NextObservations`); rows are drawn as they were added, to the bit.

    Attributes:
        rng: NumPy's generator for subclasses, whose state goes into checkpoints. After the state of an earlier version, which
            drew by it, all draws go on with it.
        stream: The random numbers of updates, and how many were drawn.
        num_rows_added: In all, also those that were overwritten.
    """

    draws_n_steps = True

    def __init__(self, schema: RowSchema, capacity: int = 1_000_000, seed: Any = None, device: str = "cpu"):
        """
        Args:
            schema: The columns of drawn rows; `schema.stored` are kept.
            capacity: Rows (env steps) to keep; the oldest are overwritten.
            seed: Of all draws, as `numpy.random.default_rng` takes it.
            device: Where the rows are kept and drawn: "cpu", or "cuda" to keep them beside a Learner on a GPU.

        Raises:
            ValueError: If the device cannot hold `capacity` rows.
        """
        super().__init__(schema, capacity, seed)
        self.rng = np.random.default_rng(seed)
        self.stream = UpdateStream(seed, "rows")
        self._next = 0
        self._size = 0
        self.num_rows_added = 0
        self.device = torch.device(device)
        check_memory(self.capacity, self.bytes_per_row, device, schema.layout.has_images)
        logger.info("Replay buffer: %d rows, up to %.1f MiB", self.capacity, self.capacity * self.bytes_per_row / 2**20)
        shape = self.capacity, schema.kept_width
        # np.zeros takes memory only as rows are written, so a large capacity costs nothing in a short run.
        on_cpu = self.device.type == "cpu"
        self._rows = torch.from_numpy(np.zeros(shape, np.float32)) if on_cpu else torch.zeros(shape, device=self.device)
        self._columns = views(self._rows, schema.kept)
        self._upload = RingUpload(self._rows)
        self._links = EpisodeLinks(self.capacity, self.device) if most_steps(schema) > 1 else None
        self._next_obs = None
        if schema.observes_bytes:
            self._next_obs = NextObservations(schema.stored, self.capacity, self.device, self._upload)
        self._drawn_rows = DrawnRows(schema, self._rows, self._links, self._next_obs)

    def __len__(self) -> int:
        """Rows held now."""
        return self._size

    @property
    def next_place(self) -> int:
        """Where in the ring the next row will lie; the ones after it follow, from 0 again after `capacity - 1`."""
        return self._next

    @property
    def bytes_per_row(self) -> int:
        """Bytes of one joint row that is kept, as `RowSchema.bytes_per_kept_row` counts them."""
        return self.schema.bytes_per_kept_row

    @override(JointReplay)
    def store(self, rollouts: Sequence[JointRollout | RemoteRollout]) -> list[Stored]:
        """Adds those whose values are all finite; for each what became of it. Fetches those that are elsewhere."""
        return [self._store(rollout) for rollout in rollouts]

    def _store(self, rollout: JointRollout | RemoteRollout) -> Stored:
        if isinstance(rollout, RemoteRollout):  # of a subclass with `fetches_rollouts`
            try:
                rollout = ray.get(rollout.rows)
            except ObjectLostError:
                logger.warning(LOST)
                return Stored(lost=True)
        try:
            rollout.check_finite(self.schema.stored)
        except ValueError as error:
            return Stored(error=str(error))
        self.add(rollout)
        return Stored(len(rollout))

    def add(self, rollout: JointRollout) -> None:
        """Appends a rollout, overwriting the oldest rows. Of a rollout longer than the ring only the end is kept."""
        rows = len(rollout)
        skip = max(0, rows - self.capacity)
        place = (self._next + skip) % self.capacity
        self._upload.write(rollout.rows[skip:, : self._rows.shape[1]], place)
        for beside in (self._links, self._next_obs):
            if beside is not None:
                beside.add(rollout, skip, self.num_rows_added + skip, place)
        self._next = int((self._next + rows) % self.capacity)
        self._size = min(self.capacity, self._size + rows)
        self.num_rows_added += rows

    @override(JointReplay)
    def draw(self, learners: int, updates: int, rows: int, shuffled: bool = False) -> list[JointBatch]:
        """Rows drawn uniformly with replacement, on the buffer's device; arguments as in `JointReplay.draw`."""
        total = learners * rows
        # A subclass chooses the rows of all updates in one call.
        is_ours = type(self).choose is JointReplayBuffer.choose
        batch = self.rows_at(self._choose(updates, total) if is_ours else self.choose(updates * total))
        # Each update's rows side by side: all Learners together make the updates that one would make on the whole batch.
        return batch.shards(learners, rows) if learners > 1 else [batch]

    @override(JointReplay)
    def latest(self, rows: int) -> JointBatch:
        count = max(0, min(rows, self._size))
        return self.rows_at((self._next - count + np.arange(count)) % self.capacity)

    def sample(self, num_rows: int) -> JointBatch:
        """The rows that `choose` draws, as tensors on the buffer's device; errors as there."""
        return self.rows_at(self.choose(num_rows))

    def choose(self, num_rows: int) -> np.ndarray:
        """Draws places in the ring uniformly with replacement, as for one update: `[num_rows]`, int64.

        A subclass that overrides it chooses the rows of all updates of a `draw` in one call, those of each side by side.

        Raises:
            ValueError: If the buffer is empty.
        """
        return self._choose(1, num_rows)

    def _choose(self, updates: int, rows: int) -> np.ndarray:
        """Places for the rows of the next updates, one after the other."""
        self._check_filled()
        first = self.stream.next(updates)
        if self.stream.key is not None:
            return self.places_of(first, updates, rows).ravel()
        return self.rng.integers(0, self._size, updates * rows)

    def places_of(self, first: int, updates: int, rows: int) -> np.ndarray:
        """The places that the updates from number `first` on get, of the rows held now.

        Args:
            first: Number of an update, counted from 0 over all calls of `draw`.
            updates: How many.
            rows: Of each update, for all Learners together: the k-th of them gets the k-th part.

        Returns:
            `[updates, rows]`, int64.

        Raises:
            ValueError: If the buffer is empty.
        """
        self._check_filled()
        return below(self.stream.bits(first, updates, rows), self._size)

    def _check_filled(self) -> None:
        if not self._size:
            raise ValueError("The replay buffer is empty: sample from the environment before you train.")

    def rows_at(self, places: np.ndarray | Tensor) -> JointBatch:
        """Rows at these places of the ring as they are drawn, on the buffer's device; a column `weights` has its `fill`."""
        # Places are drawn on the CPU, so that every device gives the same rows.
        with self._upload as ring:
            return JointBatch(self.schema, self._drawn_rows(ring, self._upload.places(places)))

    @override(Checkpointable)
    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The filled part of the ring, its position, and where its random numbers are."""
        logger.info("Replay buffer in checkpoint: %d rows, %.1f MiB", self._size, self._size * self.bytes_per_row / 2**20)
        with self._upload:
            columns = {name: column[: self._size].cpu().numpy().copy() for name, column in self._columns.items()}
            beside, alone = {}, {}
            if self._links is not None:
                beside[AHEAD] = self._links.get_ahead(self._size)
            if self._next_obs is not None:
                beside[FOLLOWERS], alone[NEW_OBS] = self._next_obs.get_state(self._size)
        return {
            **({BESIDE: beside} if beside else {}),
            **({ALONE: alone} if alone else {}),
            "columns": columns,
            "next": self._next,
            "capacity": self.capacity,
            "num_rows_added": self.num_rows_added,
            "rng": self.rng.bit_generator.state,
            **self.stream.get_state(),
            "layout": self.schema.layout.description(),
            SCHEMA: self.schema.stored.description(),
        }

    @override(Checkpointable)
    def set_state(self, state: dict[str, Any]) -> None:
        """Restores `get_state()`, also that of a `ShardedReplayBuffer` or of an earlier version.

        A smaller ring keeps the newest rows. Columns that the rows did not have get their `fill`.

        Raises:
            ValueError: If it does not fit, with nothing changed.
        """
        self.check_state(state)
        state = merged(state)
        rows = num_rows(state["columns"])
        # Oldest row first, unless nothing changed: then every row keeps its place, so that sampling goes on alike.
        order = np.arange(rows) if self.capacity == state["capacity"] else (state["next"] + np.arange(rows)) % max(rows, 1)
        order = order[max(0, rows - self.capacity) :]
        if len(order) < rows:
            logger.warning("The replay buffer holds %d rows only: the oldest %d are dropped.", len(order), rows - len(order))
        with self._upload:
            for name, column in self._columns.items() if rows else ():
                kept = state["columns"].get(name)
                column[: len(order)] = self.schema.columns[name].fill if kept is None else torch.from_numpy(kept[order])
        self._size = len(order)
        self._next = state["next"] if self.capacity == state["capacity"] else self._size % self.capacity
        self.num_rows_added = state["num_rows_added"]
        # Several shards had generators and keys of their own; what is made of their rows goes on with neither.
        is_one = state["rng"] is not None
        if is_one:
            self.rng.bit_generator.state = state["rng"]
        self.stream.set_state(state, goes_on=is_one)
        self._restore(state, order)

    def _restore(self, state: Mapping[str, Any], order: np.ndarray) -> None:
        """Restores what is kept beside the rows.

        Args:
            state: Of one buffer.
            order: For each place, from the first one on, the row of the state that lies there now.
        """
        if self._links is not None:
            # Rows of a state without links are drawn with one step each.
            ahead = state.get(BESIDE, {}).get(AHEAD)
            self._links.set_ahead(None if ahead is None else ahead[order])
        if self._next_obs is not None:
            self._next_obs.set_state(*next_obs_of(state, order))

    @override(JointReplay)
    def check_state(self, state: dict[str, Any]) -> None:
        check_buffer_state(state, self.schema.stored)

    @override(Checkpointable)
    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        return (), {"schema": self.schema, "capacity": self.capacity, "device": str(self.device)}


def check_memory(capacity: int, bytes_per_row: int, device: str = "cpu", has_images: bool = False) -> None:
    """Raises a ValueError if the device cannot hold a full buffer; `has_images`: of rows that could be smaller."""
    what = "this machine"
    if device == "cpu":
        available = psutil.virtual_memory().available
    else:
        # What PyTorch holds for tensors to come counts as free.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        available, what = torch.cuda.mem_get_info(device)[0] + held, f"device {device!r}"
    needed = capacity * bytes_per_row
    if needed > available:
        raise ValueError(
            f"`replay_buffer_config['capacity']`={capacity} rows of {bytes_per_row} bytes need {needed / 2**30:.1f} GiB when "
            f"full, but {what} has {available / 2**30:.1f} GiB available. Set a capacity of at most "
            f"{int(0.8 * available / bytes_per_row)}{SMALLER_IMAGES if has_images else ''}."
        )
