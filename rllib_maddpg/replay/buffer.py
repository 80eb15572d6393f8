"""The replay buffer D of Algorithm 1: a columnar ring of joint transitions."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

import numpy as np
import psutil
from ray.rllib.core.columns import Columns
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.annotations import override
from ray.rllib.utils.checkpoints import Checkpointable

from rllib_maddpg.layout import JointLayout
from rllib_maddpg.replay.rollout import COLUMNS, JointRollout, column_width

logger = logging.getLogger(__name__)

# Names of our columns in the batch that the Learner gets; those that RLlib has a name for bear it.
BATCH_COLUMNS = {
    "obs": Columns.OBS,
    "actions": Columns.ACTIONS,
    "rewards": Columns.REWARDS,
    "new_obs": Columns.NEXT_OBS,
    "terminateds": Columns.TERMINATEDS,
    "alive": "alive",
    "next_alive": "next_alive",
}


class JointReplayBuffer(Checkpointable):
    """Ring of joint transitions, sampled uniformly with replacement.

    Rows are never taken apart: one index draws the observations, actions and rewards of all agents at one env step.
    """

    def __init__(self, layout: JointLayout, capacity: int = 1_000_000, seed: int | None = None):
        """
        Args:
            layout: Order of agents in a row.
            capacity: Rows (env steps) to keep; the oldest are overwritten.
            seed: Of the sampling generator.

        Raises:
            ValueError: If this machine cannot hold `capacity` rows.
        """
        self.layout = layout
        self.capacity = int(capacity)
        self._rng = np.random.default_rng(seed)
        self._next = 0
        self._size = 0
        self.num_rows_added = 0
        check_memory(self.capacity, self.bytes_per_row)
        logger.info("Replay buffer: %d rows, up to %.1f MiB", self.capacity, self.capacity * self.bytes_per_row / 2**20)
        # np.zeros takes memory only as rows are written, so a large capacity costs nothing in a short run.
        self._columns = {n: np.zeros((self.capacity, column_width(layout, n)), np.float32) for n in COLUMNS}

    def __len__(self) -> int:
        """Rows held now."""
        return self._size

    @property
    def bytes_per_row(self) -> int:
        """Bytes of one joint row."""
        return 4 * sum(column_width(self.layout, name) for name in COLUMNS)

    def add(self, rollout: JointRollout) -> None:
        """Appends a rollout, overwriting the oldest rows. Of a rollout longer than the ring only the end is kept."""
        rows = len(rollout)
        skip = max(0, rows - self.capacity)
        at = (self._next + np.arange(skip, rows)) % self.capacity
        for name, column in self._columns.items():
            column[at] = rollout.columns[name][skip:]
        self._next = int((self._next + rows) % self.capacity)
        self._size = min(self.capacity, self._size + rows)
        self.num_rows_added += rows

    def sample_rows(self, num_rows: int) -> dict[str, np.ndarray]:
        """Draws rows uniformly with replacement: per column a float32 array `[num_rows, width]`."""
        if not self._size:
            raise ValueError("The replay buffer is empty: sample from the environment before you train.")
        at = self._rng.integers(0, self._size, num_rows)
        return {name: column[at] for name, column in self._columns.items()}

    def sample(self, num_rows: int) -> MultiAgentBatch:
        """Draws a batch for the Learner.

        Returns:
            Per module the columns `obs`, `new_obs` `[B, n, obs_dim]`, `actions` `[B, n, code_dim]`, and `rewards`,
            `terminateds`, `alive`, `next_alive` `[B, n]`, float32, for the n agents of the module in layout order. Row b of
            every module is the same env step, so RLlib may shard the batch by rows.
        """
        rows = self.sample_rows(num_rows)
        split = self.layout.split
        return MultiAgentBatch(
            {
                module: SampleBatch({BATCH_COLUMNS[c]: split(rows[c], module, COLUMNS[c]) for c in COLUMNS})
                for module in self.layout.modules
            },
            env_steps=num_rows,
        )

    @override(Checkpointable)
    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The filled part of the ring, its position and the generator's state."""
        logger.info("Replay buffer in checkpoint: %d rows, %.1f MiB", self._size, self._size * self.bytes_per_row / 2**20)
        return {
            "columns": {name: column[: self._size].copy() for name, column in self._columns.items()},
            "next": self._next,
            "capacity": self.capacity,
            "num_rows_added": self.num_rows_added,
            "rng": self._rng.bit_generator.state,
            "layout": self.layout.description(),
        }

    @override(Checkpointable)
    def set_state(self, state: dict[str, Any]) -> None:
        """Restores `get_state()`. A smaller ring keeps the newest rows."""
        self.layout.check_same(state["layout"], "The replay buffer of the checkpoint")
        rows = len(state["columns"]["rewards"])
        # Oldest row first, unless nothing changed: then every row keeps its place, so that sampling goes on alike.
        order = np.arange(rows) if self.capacity == state["capacity"] else (state["next"] + np.arange(rows)) % max(rows, 1)
        order = order[max(0, rows - self.capacity) :]
        if len(order) < rows:
            logger.warning("The replay buffer holds %d rows only: the oldest %d are dropped.", len(order), rows - len(order))
        for name, column in self._columns.items():
            column[: len(order)] = state["columns"][name][order]
        self._size = len(order)
        self._next = state["next"] if self.capacity == state["capacity"] else self._size % self.capacity
        self.num_rows_added = state["num_rows_added"]
        self._rng.bit_generator.state = state["rng"]

    @override(Checkpointable)
    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        return (), {"layout": self.layout, "capacity": self.capacity}

    @override(Checkpointable)
    def get_checkpointable_components(self) -> list:
        return []


def check_memory(capacity: int, bytes_per_row: int) -> None:
    """Raises a ValueError if this machine cannot hold a full buffer."""
    needed, available = capacity * bytes_per_row, psutil.virtual_memory().available
    if needed > available:
        raise ValueError(
            f"`replay_buffer_config['capacity']`={capacity} rows of {bytes_per_row} bytes need {needed / 2**30:.1f} GiB when "
            f"full, but this machine has {available / 2**30:.1f} GiB available. Set a capacity of at most "
            f"{int(0.8 * available / bytes_per_row)}."
        )
