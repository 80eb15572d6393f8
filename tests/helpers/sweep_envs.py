"""A cheap game for sweeps that counts its steps in a file and fails where a test wants it."""

import os

import gymnasium as gym
import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv

AGENTS = ["left", "right"]
EPISODE = 5


class CountedEnv(MultiAgentEnv):
    """Two agents are paid for being near the middle; episodes of 5 steps.

    `env_config`: `file`: gets one byte for each env step of any process; `fail_after`: env steps until it raises; `bonus`:
    added to each reward.
    """

    def __init__(self, config):
        self.options = dict(config)
        self.possible_agents = self.agents = list(AGENTS)
        self.observation_spaces = {agent: gym.spaces.Box(-2, 2, (1,), np.float32) for agent in AGENTS}
        self.action_spaces = {agent: gym.spaces.Box(-1, 1, (1,), np.float32) for agent in AGENTS}
        self.steps = 0
        file = self.options.get("file")
        self.file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if file else None
        super().__init__()

    def _obs(self):
        return {agent: np.float32([self.place[agent]]) for agent in AGENTS}

    def reset(self, *, seed=None, options=None):
        self.time = 0
        random = np.random.default_rng(seed)
        self.place = {agent: random.uniform(-1, 1) for agent in AGENTS}
        return self._obs(), {}

    def step(self, actions):
        self.steps += 1
        self.time += 1
        if self.file is not None:
            os.write(self.file, b".")
        if self.steps > self.options.get("fail_after", np.inf):
            raise RuntimeError("the game is broken")
        for agent in AGENTS:
            self.place[agent] = float(np.clip(self.place[agent] + 0.2 * actions[agent][0], -2, 2))
        rewards = {agent: self.options.get("bonus", 0.0) - abs(self.place[agent]) for agent in AGENTS}
        over = self.time >= EPISODE
        return self._obs(), rewards, {"__all__": False}, {"__all__": over}, {}
