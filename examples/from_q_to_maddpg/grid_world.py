"""The small known Markov decision process of the first steps: a grid world of 4 x 3 fields with a wall, a prize and a pit.

An agent goes up, right, down or left; one time in five it slips to a side. Walls stop it. Each step costs 0.04; the prize pays
1 and the pit -1, and both end the game.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROWS = ("...+", ".#.-", "....")
PAYS = {"+": 1.0, "-": -1.0}
# Up, right, down, left.
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
SLIPS, COST = 0.2, 0.04


@dataclass(frozen=True)
class MDP:
    """A finite Markov decision process.

    Attributes:
        transitions: P(s' | s, a), `[S, A, S]`; zeros after an end.
        rewards: Expected reward of a in s, `[S, A]`.
        gamma: Discount.
        start: State in which games begin.
        fields: Row and column of each state, `[S, 2]`.
    """

    transitions: np.ndarray
    rewards: np.ndarray
    gamma: float
    start: int
    fields: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """S, A."""
        return self.rewards.shape

    def backup(self, q: np.ndarray) -> np.ndarray:
        """The right side of Bellman's optimality equation, `[S, A]`."""
        return self.rewards + self.gamma * self.transitions @ q.max(1)

    def step(self, state: int, action: int, rng: np.random.Generator) -> tuple[int, float, bool]:
        """A sampled step: next state, reward, and whether the game is over, which the reward of the end tells."""
        chances = self.transitions[state, action]
        over = rng.random() >= chances.sum()
        # What is paid at an end is in the expected reward already.
        return (state if over else int(rng.choice(len(chances), p=chances / chances.sum()))), self.rewards[state, action], over


def grid_world(gamma: float = 0.9) -> MDP:
    """The grid world of this page."""
    fields = [(r, c) for r, row in enumerate(ROWS) for c, field in enumerate(row) if field == "."]
    number = {field: s for s, field in enumerate(fields)}
    transitions, rewards = np.zeros((len(fields), 4, len(fields))), np.full((len(fields), 4), -COST)
    for (r, c), s in number.items():
        for a in range(4):
            for turn, chance in ((0, 1 - SLIPS), (1, SLIPS / 2), (-1, SLIPS / 2)):
                move = MOVES[(a + turn) % 4]
                to = r + move[0], c + move[1]
                inside = 0 <= to[0] < len(ROWS) and 0 <= to[1] < len(ROWS[0])
                field = ROWS[to[0]][to[1]] if inside else "#"
                if field in PAYS:
                    rewards[s, a] += chance * PAYS[field]
                else:
                    transitions[s, a, number.get(to, s)] += chance
    return MDP(transitions, rewards, gamma, number[2, 0], np.array(fields))


def optimal_values(mdp: MDP) -> np.ndarray:
    """Q*, `[S, A]`, to the last digits."""
    q = np.zeros(mdp.shape)
    for _ in range(2000):
        q = mdp.backup(q)
    return q
