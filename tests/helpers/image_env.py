"""A small game whose agents observe images of bytes, and die or join while it goes on."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv

SHAPES = {"a": (6, 5, 2), "b": (6, 5, 2), "c": (5, 5, 1)}


class ImageEnv(MultiAgentEnv):
    """Agent a is there for the whole episode, b dies at some time, and c joins at the second step.

    `env_config`: `length`, env steps of an episode; `dtype`, of the images that are given; `add`, what is added to them at
    step 2; `vectors`, whether agents observe vectors of floats instead.

    Attributes:
        seen: Per episode and step, agent -> image.
    """

    def __init__(self, config):
        super().__init__()
        self.length, self.dtype, self.add = config.get("length", 7), config.get("dtype", "uint8"), config.get("add", 0)
        self.vectors = config.get("vectors", False)
        self.possible_agents = list(SHAPES)
        kinds = {
            agent: ((int(np.prod(shape)),), np.float32) if self.vectors else (shape, np.uint8)
            for agent, shape in SHAPES.items()
        }
        self.observation_spaces = {agent: gym.spaces.Box(0, 255, *kind) for agent, kind in kinds.items()}
        self.action_spaces = dict.fromkeys(SHAPES, gym.spaces.Discrete(3))
        self.seen = []

    def reset(self, *, seed=None, options=None):
        self.random, self.time, self.agents = np.random.default_rng(seed), 0, ["a", "b"]
        self.seen.append([])
        return self._observe(self.agents), {}

    def step(self, actions):
        self.time += 1
        acting = list(self.agents)
        dies = "b" in acting and self.random.random() < 0.3
        seeing = [*acting, *(["c"] if self.time == 2 else [])]
        over = self.time == self.length
        self.agents = [agent for agent in seeing if not (dies and agent == "b")]
        rewards = {agent: float(actions[agent] == k) for k, agent in enumerate(acting)}
        truncateds = {"__all__": over}
        return self._observe(seeing), rewards, {"__all__": False, **({"b": True} if dies else {})}, truncateds, {}

    def _observe(self, agents):
        images = {agent: self.random.integers(0, 256, SHAPES[agent], np.uint8) for agent in agents}
        self.seen[-1].append(images)
        given = {agent: image.astype(self.dtype) + (self.add if self.time == 2 else 0) for agent, image in images.items()}
        return {agent: np.float32(image).ravel() if self.vectors else image for agent, image in given.items()}
