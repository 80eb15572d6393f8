"""A columnar block of joint transitions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from rllib_maddpg.rows.schema import Place, RowSchema, views

# What columns hold, where their names do not say it.
_WHAT = {"obs": "observation", "new_obs": "next observation", "rewards": "reward", "actions": "action"}


@dataclass
class JointRollout:
    """Joint transitions `(x, a, r, x', terminated)` of all agents: one row is one environment step.

    In a game of turns one row is the transition of the agents that act at one step and next act at the same one
    (`rllib_maddpg.rows.turns`), so there may be more rows than env steps, or fewer.

    Attributes:
        rows: All columns side by side in the order of the schema, float32 `[T, row_width]`: one array to send and to store.
        places: Where each column lies in a row; what goes along of the schema.
        worker_index: Runner that sampled it (0: the local one).
        episode_numbers: Number of the next episode in each of the runner's envs.
        steps: Env steps of games of turns, whose rows are none; None: each row is one.
        error: Why there are fewer rows than asked for, for the algorithm to raise when it has stored them; empty: all is well.
    """

    rows: np.ndarray
    places: tuple[Place, ...]
    worker_index: int = 0
    episode_numbers: list[int] = field(default_factory=list)
    error: str = ""
    steps: int | None = None

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
        """Per column of the schema a view `[T, width]`, agents in layout order.

        An agent that takes no part in a row (dead, or not yet in the game) has `alive` 0 and zeros elsewhere, but in
        `sub_policies`, where there are ensembles: which one it plays is the same in a whole episode. `new_obs` is the
        true last observation at an episode's end; `terminateds` is 1 only for a real end, not at a time limit. `next_alive`
        is 1 for an agent that acts at x', or would but for the time limit, where `truncateds` is 1. `episodes` is the number
        of the row's episode among those of its env runner, and `t` the env steps of the episode before this one.
        """
        return views(self.rows, self.places)

    def env_steps(self) -> int:
        """Number of env steps: that of the rows, but in games of turns."""
        return len(self) if self.steps is None else self.steps

    def agent_steps(self) -> int:
        """Number of actions taken, over all agents."""
        columns = self.columns
        return int(columns.get("acts", columns["alive"]).sum())

    @classmethod
    def empty(cls, schema: RowSchema, rows: int) -> JointRollout:
        """`rows` rows in which nothing is written yet."""
        return cls(schema.empty(rows), schema.places)

    @classmethod
    def concat(cls, schema: RowSchema, blocks: list[JointRollout]) -> JointRollout:
        """One block after the other; no blocks give no rows."""
        if not blocks:
            return cls.empty(schema, 0)
        steps = None if blocks[0].steps is None else sum(b.env_steps() for b in blocks)
        return cls(np.concatenate([b.rows for b in blocks]), schema.places, steps=steps)

    def check_finite(self, schema: RowSchema) -> None:
        """Refuses NaN and infinity from the environment.

        Raises:
            ValueError: Naming agent, quantity and row.
        """
        if is_finite(np.ascontiguousarray(self.rows[:, : schema.finite_width])):
            return
        columns = self.columns
        # Observations first, of which the rest may have come.
        for name in dict.fromkeys(["obs", "new_obs", *(n for n, c in schema.columns.items() if c.finite)]):
            values = columns[name]
            if np.isfinite(values).all():
                continue
            row, at = np.argwhere(~np.isfinite(values))[0]
            agent = schema.owner(name, at)
            of = "" if agent is None else f" of agent {agent!r}"
            raise ValueError(
                f"The {_WHAT.get(name, f'value in column {name!r}')}{of} is {values[row, at]} at step {row} of the rollout of "
                f"env runner {self.worker_index}. None of its rows were stored. Fix the environment, or wrap it so that its "
                "observations and rewards are finite."
            )


def is_finite(array: np.ndarray) -> bool:
    """Whether there is neither NaN nor infinity in a contiguous float array."""
    # The sum of squares tells it at a third of the price, unless it overflows.
    return math.isfinite(np.vdot(array, array)) or bool(np.isfinite(array).all())
