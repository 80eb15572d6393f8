"""Random histories of a small game of images: most x' are the x of the next row, and it is known which ones are not."""

from __future__ import annotations

from collections.abc import Iterable

import gymnasium as gym
import numpy as np
from histories import AGENTS, EXTRA, History

from rllib_maddpg.rows.drawn_columns import n_step_columns, weights_columns
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.schema import RowSchema

# Of so many bytes that the last word of all images is not full.
SHAPES = {"a": (3, 3, 1), "b": (2, 3, 3), "c": (3, 3, 2)}
SIZE = 9 + 18 + 18
IMAGES = {agent: gym.spaces.Box(0, 255, shape, np.uint8) for agent, shape in SHAPES.items()}
LAYOUT = JointLayout(
    {agent: gym.spaces.Box(0, 255, (int(np.prod(shape)),), np.float32) for agent, shape in SHAPES.items()},
    {agent: gym.spaces.Discrete(2) for agent in AGENTS},
    {agent: f"module_{agent}" for agent in AGENTS}.get,
    observed=IMAGES,
)


def image_schema(n: int = 1, weighs: bool = False) -> RowSchema:
    """Of drawn rows of n steps."""
    return RowSchema(LAYOUT, EXTRA, [*(weights_columns() if weighs else []), *n_step_columns(n)])


class ImageHistory(History):
    """As `History`, where agents see images: what they see next is what they see in the next row, unless they are gone then."""

    def __init__(self, seed: int, workers: int = 3, envs: int = 2, deaths: float = 0.1):
        super().__init__(seed, workers, envs)
        self.schema, self.deaths = image_schema(), deaths
        self._seen: dict[tuple[int, int], np.ndarray] = {}  # by worker and episode

    def _row(self, worker: int, episode: int, t: int) -> tuple[dict, bool]:
        row, is_over = super()._row(worker, episode, t)
        first, row["new_obs"] = self.rng.integers(0, 256, (2, SIZE)).astype(np.uint8)
        row["obs"] = self._seen.get((worker, episode), first).copy()
        if self.rng.random() < self.deaths:
            row["obs"][LAYOUT.slots[1].obs] = 0
        self._seen[worker, episode] = row["new_obs"]
        return row, is_over

    def alone(self, numbers: Iterable[int], since: int = 0) -> int:
        """How many of the rows of these numbers have an x' that is not the x of the next row of their episode.

        Args:
            numbers: Of rows among all.
            since: Rows from this number on follow none before it, as after a state was restored.
        """
        place = {(row["worker"], int(row["episodes"][0]), int(row["t"][0])): k for k, row in enumerate(self.rows)}
        count = 0
        for number in numbers:
            row = self.rows[number]
            k = place.get((row["worker"], int(row["episodes"][0]), int(row["t"][0]) + 1))
            count += k is None or (number < since <= k) or not (self.rows[k]["obs"] == row["new_obs"]).all()
        return count
