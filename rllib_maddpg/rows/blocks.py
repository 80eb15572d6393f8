"""Joint rows of several environments while they are being written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import RowSchema
from rllib_maddpg.rows.turns import OpenTurns, rows_of


class RowBlocks:
    """Rows `[E, T, row_width]`: row t of env e. Each starts out as one in which all agents are in the game and none ends.

    Attributes:
        columns: By name as in `JointRollout`, views `[E, T, width]`; rewards are float64 until the end, for exact sums.
        filled: `[E, T]` bool: False where an env failed and there is no row.
    """

    def __init__(self, schema: RowSchema, num_envs: int, steps: int):
        """
        Args:
            schema: The columns of a row.
            num_envs: E.
            steps: T; `grow` doubles it.
        """
        self.schema = schema
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
        filled = self._kept(steps, keep)
        self.schema.split(self._rows)["rewards"][:] = self._rewards
        rows = self._rows[:, :steps]
        return JointRollout(rows.reshape(-1, rows.shape[-1]) if filled.all() else rows[filled], self.schema.places)

    def turns_rollout(self, steps: int, keep: np.ndarray | None, open_turns: Sequence[OpenTurns]) -> JointRollout:
        """As `rollout`, of records of games of turns: what `rows.turns` makes of them.

        Args:
            steps, keep: As in `rollout`.
            open_turns: Of each env; are brought up to date.
        """
        filled, rows = self._kept(steps, keep), self._rows[:, :steps]
        each = zip(filled, rows, self._rewards[:, :steps], open_turns, strict=True)
        made = [rows_of(self.schema, records[own], rewards[own], turns) for own, records, rewards, turns in each]
        return JointRollout(np.concatenate(made), self.schema.places, steps=int(filled.sum()))

    def _kept(self, steps: int, keep: np.ndarray | None) -> np.ndarray:
        return self.filled[:, :steps] if keep is None else self.filled[:, :steps] & keep

    def agent_steps(self, steps: int) -> dict[str, int]:
        """By agent the number of the first `steps` rows of each env after which it acts, or would had it not ended."""
        acts = self.columns[self.schema.real_name("next_acts")]
        followed = (acts + self.columns["terminateds"])[:, :steps][self.filled[:, :steps]]
        return dict(zip(self.schema.layout.agents, map(int, followed.sum(0)), strict=True))

    def _set(self, rows: np.ndarray, rewards: np.ndarray, filled: np.ndarray) -> None:
        self._rows, self._rewards, self.filled = rows, rewards, filled
        self.columns = {**self.schema.split(rows), "rewards": rewards}

    def _make(self, num_envs: int, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = self.schema.empty(num_envs, steps)
        for name in ("alive", "next_alive"):
            self.schema.split(rows)[name][:] = 1.0
        return rows, np.zeros((num_envs, steps, len(self.schema.layout))), np.ones((num_envs, steps), bool)
