"""Two-agent Markov games small enough to be solved exactly, given by arrays, and as RLlib environments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv

AGENTS = ("agent_0", "agent_1")


@dataclass(frozen=True)
class MarkovGame:
    """P[s, a0, a1, s'] (sums to 1 also where the game ends), R[i, s, a0, a1], D[s, a0, a1] (1: the game ends)."""

    P: np.ndarray
    R: np.ndarray
    D: np.ndarray

    @property
    def n_states(self) -> int:
        return self.P.shape[0]

    @property
    def n_actions(self) -> tuple[int, int]:
        return self.P.shape[1], self.P.shape[2]


def chain_game(slip: float = 0.2) -> MarkovGame:
    """A chain of 4 states; agent 0 has 2 actions, agent 1 has 3.

    Agent 0 chooses the direction (0: left, 1: right). Agent 1 chooses what comes of it: 0: one step that way, 1: one
    step the other way, 2: no step. With probability ``slip`` the state stays whatever they choose. At the ends of the
    chain a step over the edge stays there. The game ends if in state 3 agent 0 goes right and agent 1 lets it, and if
    in state 0 agent 0 goes left and agent 1 chooses no step. The rewards differ between the agents and from one joint
    action to the next.
    """
    n_states, n0, n1 = 4, 2, 3
    P = np.zeros((n_states, n0, n1, n_states))
    R = np.zeros((2, n_states, n0, n1))
    D = np.zeros((n_states, n0, n1))
    for s in range(n_states):
        for a0 in range(n0):
            for a1 in range(n1):
                direction = (-1, 1)[a0] * (1, -1, 0)[a1]
                moved = min(max(s + direction, 0), n_states - 1)
                P[s, a0, a1, moved] += 1.0 - slip
                P[s, a0, a1, s] += slip
                R[0, s, a0, a1] = 0.3 * s - 0.2 * a0 + (0.0, 0.5, -0.1)[a1]
                R[1, s, a0, a1] = (0.4, -0.3, 0.1, 0.6)[s] * (1, -1)[a0] + 0.25 * (a1 == (s + a0) % 3)
    D[3, 1, 0] = 1.0
    R[0, 3, 1, 0] = 2.0
    R[1, 3, 1, 0] = -1.0
    D[0, 0, 2] = 1.0
    R[0, 0, 0, 2] = -0.5
    R[1, 0, 0, 2] = 1.5
    return MarkovGame(P, R, D)


def exact_q(game: MarkovGame, policies: Sequence[Sequence[int]], gamma: float) -> np.ndarray:
    """Q[i, s, a0, a1] of the fixed deterministic policies ``policies[j][s]``.

    Q_i(s, a) = R_i(s, a) + gamma (1 - D(s, a)) sum_s' P(s' | s, a) Q_i(s', pi(s')), by a linear solve for
    V_i(s) = Q_i(s, pi(s)).
    """
    n = game.n_states
    go_on = gamma * (1.0 - game.D)[..., None] * game.P  # [s, a0, a1, s']
    q = np.zeros_like(game.R)
    for i in range(2):
        A, r = np.eye(n), np.zeros(n)
        for s in range(n):
            a0, a1 = policies[0][s], policies[1][s]
            A[s] -= go_on[s, a0, a1]
            r[s] = game.R[i, s, a0, a1]
        v = np.linalg.solve(A, r)
        q[i] = game.R[i] + go_on @ v
    return q


@dataclass(frozen=True)
class Transition:
    state: int
    actions: tuple[int, int]
    next_state: int
    probability: float
    rewards: tuple[float, float]
    terminated: bool


def all_transitions(game: MarkovGame) -> list[Transition]:
    """All (s, a0, a1, s') of probability above 0, in that order."""
    return [
        Transition(
            state=s,
            actions=(a0, a1),
            next_state=s_,
            probability=float(game.P[s, a0, a1, s_]),
            rewards=(float(game.R[0, s, a0, a1]), float(game.R[1, s, a0, a1])),
            terminated=bool(game.D[s, a0, a1]),
        )
        for s, a0, a1, s_ in np.ndindex(*game.P.shape)
        if game.P[s, a0, a1, s_] > 0
    ]


class TwoAgentChain(MultiAgentEnv):
    """``chain_game`` as an environment; both agents observe the state as a one-hot.

    env_config: ``slip`` (0.2), ``max_steps`` (10; then the episode is truncated), ``start`` (the first state; None:
    uniform over all states).
    """

    def __init__(self, env_config: dict | None = None):
        super().__init__()
        config = env_config or {}
        self.game = chain_game(config.get("slip", 0.2))
        self.max_steps = config.get("max_steps", 10)
        self.start = config.get("start")
        self.possible_agents = list(AGENTS)
        self.agents = list(AGENTS)
        n = self.game.n_states
        self.observation_spaces = {agent: gym.spaces.Box(0.0, 1.0, (n,), np.float32) for agent in AGENTS}
        self.action_spaces = {agent: gym.spaces.Discrete(k) for agent, k in zip(AGENTS, self.game.n_actions, strict=True)}
        self.state = 0
        self.steps = 0

    def _obs(self) -> dict[str, np.ndarray]:
        return {agent: np.eye(self.game.n_states, dtype=np.float32)[self.state] for agent in AGENTS}

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed, options=options)
        self.agents = list(AGENTS)
        self.steps = 0
        self.state = int(self.np_random.integers(self.game.n_states)) if self.start is None else self.start
        return self._obs(), {}

    def step(self, action_dict: dict[str, int]):
        game, s = self.game, self.state
        a0, a1 = (int(action_dict[agent]) for agent in AGENTS)
        self.state = int(self.np_random.choice(game.n_states, p=game.P[s, a0, a1]))
        self.steps += 1
        rewards = {agent: float(game.R[i, s, a0, a1]) for i, agent in enumerate(AGENTS)}
        terminated = bool(game.D[s, a0, a1])
        truncated = not terminated and self.steps >= self.max_steps
        terminateds = dict.fromkeys((*AGENTS, "__all__"), terminated)
        truncateds = dict.fromkeys((*AGENTS, "__all__"), truncated)
        if terminated or truncated:
            self.agents = []
        return self._obs(), rewards, terminateds, truncateds, {}


CLIMBING_PAYOFF = np.array([[11.0, -30.0, 0.0], [-30.0, 7.0, 6.0], [0.0, 0.0, 5.0]])


class ClimbingGame(MultiAgentEnv):
    """The climbing game (Claus and Boutilier 1998): one step, and both agents get CLIMBING_PAYOFF[a0, a1]."""

    def __init__(self, env_config: dict | None = None):
        super().__init__()
        self.possible_agents = list(AGENTS)
        self.agents = list(AGENTS)
        self.observation_spaces = {agent: gym.spaces.Box(0.0, 1.0, (1,), np.float32) for agent in AGENTS}
        self.action_spaces = {agent: gym.spaces.Discrete(k) for agent, k in zip(AGENTS, CLIMBING_PAYOFF.shape, strict=True)}

    def _obs(self) -> dict[str, np.ndarray]:
        return {agent: np.ones(1, dtype=np.float32) for agent in AGENTS}

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed, options=options)
        self.agents = list(AGENTS)
        return self._obs(), {}

    def step(self, action_dict: dict[str, int]):
        a0, a1 = (int(action_dict[agent]) for agent in AGENTS)
        rewards = dict.fromkeys(AGENTS, float(CLIMBING_PAYOFF[a0, a1]))
        terminateds = dict.fromkeys((*AGENTS, "__all__"), True)
        truncateds = dict.fromkeys((*AGENTS, "__all__"), False)
        self.agents = []
        return self._obs(), rewards, terminateds, truncateds, {}
