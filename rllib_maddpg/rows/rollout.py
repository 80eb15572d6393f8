"""A columnar block of joint transitions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NoReturn

import numpy as np

from rllib_maddpg.rows.joint_batch import COLUMNS, column_widths
from rllib_maddpg.rows.layout import JointLayout


@dataclass
class JointRollout:
    """Joint transitions `(x, a, r, x', terminated)` of all agents: one row is one environment step.

    Attributes:
        rows: All columns side by side in the order of `COLUMNS`, float32 `[T, row_width]`: one array to send and to store.
        widths: Of each column.
        worker_index: Runner that sampled it (0: the local one).
        episode_numbers: Number of the next episode in each of the runner's envs.
        error: Why there are fewer rows than asked for, for the algorithm to raise when it has stored them; empty: all is well.
    """

    rows: np.ndarray
    widths: tuple[int, ...]
    worker_index: int = 0
    episode_numbers: list[int] = field(default_factory=list)
    error: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def __getattr__(self, name: str) -> NoReturn:
        # Users of RLlib ask for what its episodes have.
        raise AttributeError(
            f"A JointRollout has no `{name}`: MADDPG's env runners return joint rows (`columns`, `env_steps()`, "
            "`agent_steps()`) and not RLlib's episodes. Their returns and lengths are in `runner.get_metrics()`; an "
            "`on_episode_end` callback gets the episodes themselves. See docs/pipeline.md."
        )

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """Per column of `COLUMNS` a view `[T, width]`, agents in layout order.

        An agent that takes no part in a row (dead, or not yet in the game) has `alive` 0 and zeros elsewhere. `new_obs` is the
        true last observation at an episode's end; `terminateds` is 1 only for a real end, not at a time limit. `next_alive`
        is 1 for an agent that acts at x', or would but for the time limit.
        """
        return views(self.rows, self.widths)

    def env_steps(self) -> int:
        """Number of rows."""
        return len(self)

    def agent_steps(self) -> int:
        """Number of actions taken, over all agents."""
        return int(self.columns["alive"].sum())

    @classmethod
    def empty(cls, layout: JointLayout, rows: int) -> JointRollout:
        """`rows` zeroed rows."""
        widths = column_widths(layout)
        return cls(np.zeros((rows, sum(widths)), np.float32), widths)

    @classmethod
    def concat(cls, layout: JointLayout, blocks: list[JointRollout]) -> JointRollout:
        """One block after the other; no blocks give no rows."""
        if not blocks:
            return cls.empty(layout, 0)
        return cls(np.concatenate([b.rows for b in blocks]), blocks[0].widths)

    def check_finite(self, layout: JointLayout) -> None:
        """Refuses NaN and infinity from the environment.

        Raises:
            ValueError: Naming agent, quantity and row.
        """
        if is_finite(self.rows):
            return
        columns = self.columns
        for column in ("obs", "new_obs", "rewards", "actions"):
            values = columns[column]
            if np.isfinite(values).all():
                continue
            row, at = np.argwhere(~np.isfinite(values))[0]
            kind = COLUMNS[column]
            agent = next(
                s.agent
                for i, s in enumerate(layout.slots)
                if (at == i if kind == "agents" else getattr(s, kind).start <= at < getattr(s, kind).stop)
            )
            what = {"obs": "observation", "new_obs": "next observation", "rewards": "reward", "actions": "action"}[column]
            raise ValueError(
                f"The {what} of agent {agent!r} is {values[row, at]} at step {row} of the rollout of env runner "
                f"{self.worker_index}. None of its rows were stored. Fix the environment, or wrap it so that its "
                "observations and rewards are finite."
            )


def views(rows: np.ndarray, widths: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Per column of `COLUMNS` its part of rows `[..., row_width]`."""
    stops = list(accumulate(widths))
    return {name: rows[..., stop - width : stop] for name, width, stop in zip(COLUMNS, widths, stops, strict=True)}


def is_finite(array: np.ndarray) -> bool:
    """Whether there is neither NaN nor infinity in a contiguous float array."""
    # The sum of squares tells it at a third of the price, unless it overflows.
    return math.isfinite(np.vdot(array, array)) or bool(np.isfinite(array).all())
