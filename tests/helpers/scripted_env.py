"""A PettingZoo environment whose agents end when a script says so."""

import gymnasium as gym
import numpy as np
from pettingzoo import ParallelEnv


class Scripted(ParallelEnv):
    """Agents end when the script says so: agent -> (step, "terminated" or "truncated")."""

    metadata = {"name": "scripted", "render_modes": []}

    def __init__(self, script: dict, clears_agents: bool = True) -> None:
        self.script = script
        self.clears_agents = clears_agents
        self.possible_agents = list(script)

    def observation_space(self, agent):
        return gym.spaces.Box(-1.0, 1.0, (2,), np.float64)

    def action_space(self, agent):
        return gym.spaces.Discrete(3)

    def reset(self, seed=None, options=None):
        self.seed_and_options = (seed, options)
        self.agents = list(self.possible_agents)
        self.time = 0
        return {a: np.zeros(2) for a in self.agents}, {a: {} for a in self.agents}

    def step(self, actions):
        self.actions = actions
        self.time += 1
        acting = self.agents
        ends = {a: self.script[a][1] if self.time >= self.script[a][0] else "" for a in acting}
        if self.clears_agents:
            self.agents = [a for a in acting if not ends[a]]
        self.returned = (
            {a: np.full(2, self.time) for a in acting},
            {a: float(self.time) if self.time <= self.script[a][0] else 0.0 for a in acting},
            {a: ends[a] == "terminated" for a in acting},
            {a: ends[a] == "truncated" for a in acting},
            {a: {"time": self.time} for a in acting},
        )
        return self.returned
