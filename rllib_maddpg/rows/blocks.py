"""Joint rows of several environments while they are being written."""

from __future__ import annotations

import numpy as np

from rllib_maddpg.rows.joint_batch import column_widths
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.rollout import JointRollout, views


class RowBlocks:
    """Rows `[E, T, row_width]`: row t of env e. Each starts out as one in which all agents are in the game and none ends.

    Attributes:
        columns: By name as in `JointRollout`, views `[E, T, width]`; rewards are float64 until the end, for exact sums.
        filled: `[E, T]` bool: False where an env failed and there is no row.
    """

    def __init__(self, layout: JointLayout, num_envs: int, steps: int):
        """
        Args:
            layout: Order of agents in a row.
            num_envs: E.
            steps: T; `grow` doubles it.
        """
        self.layout, self.widths = layout, column_widths(layout)
        self._set(*self._make(num_envs, steps))

    @property
    def steps(self) -> int:
        """T, the rows that each env has room for."""
        return self.filled.shape[1]

    def grow(self) -> None:
        """Makes room for as many rows again."""
        more = self._make(*self.filled.shape)
        self._set(*(np.concatenate(both, 1) for both in zip((self._rows, self._rewards, self.filled), more, strict=True)))

    def rollout(self, steps: int, keep: np.ndarray | None = None) -> JointRollout:
        """The first `steps` rows of each env, or those where `keep` `[E, steps]` is True; env by env, in order of time."""
        filled = self.filled[:, :steps] if keep is None else self.filled[:, :steps] & keep
        views(self._rows, self.widths)["rewards"][:] = self._rewards
        rows = self._rows[:, :steps]
        return JointRollout(rows.reshape(-1, rows.shape[-1]) if filled.all() else rows[filled], self.widths)

    def agent_steps(self, steps: int) -> dict[str, int]:
        """By agent the number of the first `steps` rows of each env in whose next state it is, or would be had it not ended."""
        followed = (self.columns["next_alive"] + self.columns["terminateds"])[:, :steps][self.filled[:, :steps]]
        return dict(zip(self.layout.agents, map(int, followed.sum(0)), strict=True))

    def _set(self, rows: np.ndarray, rewards: np.ndarray, filled: np.ndarray) -> None:
        self._rows, self._rewards, self.filled = rows, rewards, filled
        self.columns = {**views(rows, self.widths), "rewards": rewards}

    def _make(self, num_envs: int, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = np.zeros((num_envs, steps, sum(self.widths)), np.float32)
        for name in ("alive", "next_alive"):
            views(rows, self.widths)[name][:] = 1.0
        return rows, np.zeros((num_envs, steps, len(self.layout))), np.ones((num_envs, steps), bool)
