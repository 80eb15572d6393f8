"""A game of turns in which anything may happen: who acts next, who is paid, who comes and goes. It writes it all down."""

from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv

AGENTS = ("a", "b", "c", "d")
WIDTHS = {"a": 2, "b": 1, "c": 3, "d": 2}


@dataclass
class Step:
    """What a step was given, and what it gave; agents by name."""

    actions: dict
    observed: dict
    rewards: dict
    terminated: set
    truncated: set
    state: list


@dataclass
class Played:
    """An episode: what `reset` gave, and its steps."""

    first: dict
    state: list
    steps: list[Step] = field(default_factory=list)


class RandomTurns(MultiAgentEnv):
    """Whoever is observed acts at the next step, as in RLlib; by lot, from the seed, whatever the actions are.

    Attributes:
        log: All episodes as `Played`.
    """

    def __init__(self, config=None):
        config = config or {}
        self.possible_agents = self.agents = list(AGENTS)
        super().__init__()
        self.observation_spaces = {a: gym.spaces.Box(-1000.0, 1000.0, (WIDTHS[a],), np.float32) for a in AGENTS}
        self.action_spaces = {
            "a": gym.spaces.Discrete(3),
            "b": gym.spaces.Box(-2.0, 2.0, (2,), np.float32),
            "c": gym.spaces.Discrete(2),
            "d": gym.spaces.MultiDiscrete([2, 3]),
        }
        self.length = config.get("length", 12)
        self.log = []

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        rng = self._rng
        self._alive, self._ended, self._t = set(), set(), 0
        self._now = self._some(AGENTS, 0.6)
        self._alive |= set(self._now)
        first = {a: self._observe(a) for a in self._now}
        self.log.append(Played(dict(first), [float(rng.normal())]))
        return first, {a: {"number": self.log[-1].state} for a in first} | {"__common__": {"number": self.log[-1].state}}

    def step(self, actions):
        assert set(actions) == set(self._now), (set(actions), set(self._now))
        rng, alive = self._rng, self._alive
        self._t += 1
        over = self._t >= self.length
        dead = {a for a in AGENTS if a in alive and (rng.random() < 0.06)}
        cut = {a for a in AGENTS if a in alive - dead and (over or rng.random() < 0.03)}
        rewards = {a: float(rng.normal()) for a in AGENTS if a not in self._ended and rng.random() < 0.6}
        rewards |= {a: float(rng.normal()) for a in sorted(actions) if a not in rewards and rng.random() < 0.5}
        alive -= dead | cut
        self._ended |= dead | cut
        coming = [a for a in AGENTS if a not in alive | self._ended]
        arrivals = [] if over else [a for a in coming if rng.random() < 0.15]
        going_on = sorted(alive)
        nexts = set(self._some(going_on, 0.4)) if going_on else set()
        last = {a for a in sorted(cut) if rng.random() < 0.7} | {a for a in sorted(dead) if rng.random() < 0.3}
        observed = nexts | set(arrivals) | last
        alive |= set(arrivals)
        self._now = sorted(nexts | set(arrivals))
        observations = {a: self._observe(a) for a in AGENTS if a in observed}
        over = not alive
        state = [float(rng.normal())]
        self.log[-1].steps.append(Step(dict(actions), dict(observations), rewards, dead, cut, state))
        terminateds = dict.fromkeys(sorted(dead), True) | {"__all__": over and not cut}
        truncateds = dict.fromkeys(sorted(cut), True) | {"__all__": over and bool(cut) and not dead}
        return observations, rewards, terminateds, truncateds, {"__common__": {"number": state}}

    def _observe(self, agent):
        return self._rng.normal(size=WIDTHS[agent]).astype(np.float32)

    def _some(self, agents, chance):
        found = [a for a in agents if self._rng.random() < chance]
        return found or [agents[int(self._rng.integers(len(agents)))]]
