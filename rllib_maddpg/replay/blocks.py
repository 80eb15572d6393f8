"""Joint rows of several environments while they are being written."""

from __future__ import annotations

import numpy as np

from rllib_maddpg.joint_batch import COLUMNS, column_width
from rllib_maddpg.layout import JointLayout
from rllib_maddpg.replay.rollout import JointRollout


class RowBlocks:
    """Columns `[E, T, width]`: row t of env e. Each row starts out as one in which all agents are in the game and none ends.

    Attributes:
        columns: By name as in `JointRollout`, float32; rewards are float64 until the end, for exact sums.
        filled: `[E, T]` bool: False where an env failed and there is no row.
    """

    def __init__(self, layout: JointLayout, num_envs: int, steps: int):
        """
        Args:
            layout: Order of agents in a row.
            num_envs: E.
            steps: T; `grow` doubles it.
        """
        self.layout, self.num_envs = layout, num_envs
        self.columns, self.filled = self._make(steps)

    @property
    def steps(self) -> int:
        """T, the rows that each env has room for."""
        return self.filled.shape[1]

    def grow(self) -> None:
        """Makes room for as many rows again."""
        columns, filled = self._make(self.steps)
        self.columns = {name: np.concatenate([block, columns[name]], 1) for name, block in self.columns.items()}
        self.filled = np.concatenate([self.filled, filled], 1)

    def rollout(self, steps: int, keep: np.ndarray | None = None) -> JointRollout:
        """The first `steps` rows of each env, or those where `keep` `[E, steps]` is True; env by env, in order of time."""
        filled = self.filled[:, :steps] if keep is None else self.filled[:, :steps] & keep
        columns = {name: block[:, :steps] for name, block in self.columns.items()}
        if filled.all():
            flat = {name: block.reshape(-1, block.shape[-1]) for name, block in columns.items()}
        else:
            flat = {name: block[filled] for name, block in columns.items()}
        flat["rewards"] = flat["rewards"].astype(np.float32)
        return JointRollout(flat)

    def agent_steps(self, steps: int) -> dict[str, int]:
        """By agent the number of the first `steps` rows of each env in whose next state it is, or would be had it not ended."""
        followed = (self.columns["next_alive"] + self.columns["terminateds"])[:, :steps][self.filled[:, :steps]]
        return dict(zip(self.layout.agents, map(int, followed.sum(0)), strict=True))

    def _make(self, steps: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        columns = {}
        for name in COLUMNS:
            make = np.ones if name in ("alive", "next_alive") else np.zeros
            dtype = np.float64 if name == "rewards" else np.float32
            columns[name] = make((self.num_envs, steps, column_width(self.layout, name)), dtype)
        return columns, np.ones((self.num_envs, steps), bool)
