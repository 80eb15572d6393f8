"""Random histories of a small game on several env runners, and what n steps of them are, row by row in plain Python."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium as gym
import numpy as np

from rllib_maddpg.rows.drawn_columns import LATER_REWARDS, STEPS, n_step_columns, weights_columns
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import Column, RowSchema

AGENTS = ("a", "b", "c")
LAYOUT = JointLayout(
    {agent: gym.spaces.Box(-1, 1, (2,)) for agent in AGENTS},
    {agent: gym.spaces.Discrete(2) for agent in AGENTS},
    {agent: f"module_{agent}" for agent in AGENTS}.get,
)
EXTRA = [Column("context", "env", width=2, at_next=True), Column("lives", "agents", dtype="uint8", at_next=True)]


def schema_of(n: int, weighs: bool = False) -> RowSchema:
    """Of drawn rows of n steps."""
    return RowSchema(LAYOUT, EXTRA, [*(weights_columns() if weighs else []), *n_step_columns(n)])


class History:
    """Envs on several runners, each with three agents who join late, die, come back or are truncated.

    Attributes:
        rows: Columns of all rows that were sampled and not lost, in the order in which they were stored, with "worker".
    """

    def __init__(self, seed: int, workers: int = 3, envs: int = 2):
        self.rng = np.random.default_rng(seed)
        self.schema = schema_of(1)
        self.rows: list[dict[str, np.ndarray]] = []
        self._at = {(w, e): (-1, -1) for w in range(workers) for e in range(envs)}  # episode and t of the last row
        self._numbers = [0] * workers
        self.workers, self.envs = workers, envs

    def rollouts(self, fragments: int) -> Iterator[JointRollout]:
        """Fragments of runners that are not always in step; some are lost on the way."""
        for _ in range(fragments):
            worker = int(self.rng.integers(self.workers))
            steps = int(self.rng.integers(1, 6))
            rows = [row for env in range(self.envs) for row in self._fragment(worker, env, steps)]
            rollout = JointRollout.empty(self.schema, len(rows))
            rollout.worker_index = worker
            for k, row in enumerate(rows):
                for name, values in rollout.columns.items():
                    values[k] = row[name]
            if self.rng.random() < 0.1:
                continue
            self.rows += rows
            yield rollout

    def give_up(self) -> None:
        """All running episodes, as env runners do that go on from a checkpoint."""
        self._at = dict.fromkeys(self._at, (-1, -1))

    def _fragment(self, worker: int, env: int, steps: int) -> Iterator[dict]:
        for _ in range(steps):
            episode, t = self._at[worker, env]
            if episode < 0 or self.rng.random() < 0.05:  # a failure: the episode is given up
                episode, t = self._numbers[worker], -1
                self._numbers[worker] += 1
            t += 1
            row, is_over = self._row(worker, episode, t)
            self._at[worker, env] = (-1, -1) if is_over else (episode, t)
            yield row

    def _row(self, worker: int, episode: int, t: int) -> tuple[dict, bool]:
        rng, n = self.rng, len(AGENTS)
        row = {name: np.float32(rng.normal(size=self.schema.width(name))) for name in self.schema.columns}
        end = str(rng.choice(["no", "terminated", "truncated"], p=[0.85, 0.1, 0.05]))
        ends = np.float32(rng.random(n) < 0.08) if end == "no" else np.full(n, float(end == "terminated"), np.float32)
        cut = np.float32(rng.random(n) < 0.04) if end == "no" else np.full(n, float(end == "truncated"), np.float32)
        row |= {"terminateds": ends, "truncateds": cut, "alive": np.float32(rng.random(n) < 0.9)}
        row |= {"next_alive": np.float32(rng.random(n) < 0.9), "episodes": np.int32([episode]), "t": np.int32([t])}
        row |= {name: rng.integers(0, 256, n).astype(np.uint8) for name in ("lives", "new_lives")}
        return {**row, "worker": worker}, end != "no"

    def drawn(self, number: int, n: int, known: int | None = None) -> dict[str, np.ndarray]:
        """Row `number` with up to n steps, of the first `known` rows of all."""
        rows = self.rows[:known]
        place = {(row["worker"], int(row["episodes"][0]), int(row["t"][0])): row for row in rows}
        window = [rows[number]]
        while len(window) < n and not window[-1]["truncateds"].any():
            last = window[-1]
            following = place.get((last["worker"], int(last["episodes"][0]), int(last["t"][0]) + 1))
            if following is None:
                break
            window.append(following)
        later = np.zeros((len(AGENTS), n - 1), np.float32)
        for agent in range(len(AGENTS)):
            for k, row in enumerate(window[1:]):
                if any(earlier["terminateds"][agent] for earlier in window[: k + 1]):
                    break
                later[agent, k] = row["rewards"][agent]
        result = {name: value for name, value in window[0].items() if name != "worker"}
        for name in ("new_obs", "next_alive", "truncateds", "new_context", "new_lives"):
            result[name] = window[-1][name]
        result["terminateds"] = np.max([row["terminateds"] for row in window], axis=0)
        return {**result, LATER_REWARDS: later.ravel(), STEPS: np.float32([len(window)])}


def check_drawn(history: History, batch, numbers, n: int, known: int | None = None) -> None:
    """The rows of a batch are those of these numbers, to the bit."""
    for k, number in enumerate(numbers):
        expected = history.drawn(int(number), n, known)
        if n == 1:
            del expected[LATER_REWARDS], expected[STEPS]
        for name, value in expected.items():
            np.testing.assert_array_equal(batch.columns[name][k].numpy(), value, err_msg=f"row {number}, {name}")
