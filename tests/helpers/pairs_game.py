"""A game that can have all that the family's members are about: masks, deaths, a global state, unlike agents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv

LENGTH = 6
IMAGE = (4, 5, 2)
# Who acts at each step of a game of turns.
ORDER = ("ac", "b", "c", "ab", "c", "a")


class PairsGame(MultiAgentEnv):
    """Agents "a" and "b" choose one of three actions, "c" moves in a box; an episode is cut after `LENGTH` steps.

    `env_config`: "masks": one action of "a" and of "b" is forbidden at each step, and taking it is an error; "deaths": "b" is
    out of the game after three steps; "images": what they see beside masks are images of bytes; "turns": agents act as `ORDER`
    says, and all in the game are paid at each step.
    """

    def __init__(self, env_config: Mapping[str, Any]):
        super().__init__()
        self.masks, self.deaths = env_config.get("masks", False), env_config.get("deaths", False)
        self.turns = env_config.get("turns", False)
        self.possible_agents = ["a", "b", "c"]
        self.agents = list(self.possible_agents)
        self.images = env_config.get("images", False)
        seen = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        if self.images:
            seen = gym.spaces.Box(0, 255, IMAGE, np.uint8)
        masked = gym.spaces.Dict({"observations": seen, "action_mask": gym.spaces.MultiBinary(3)})
        chooses = masked if self.masks else seen
        self.observation_spaces = {"a": chooses, "b": chooses, "c": seen}
        moves = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_spaces = {"a": gym.spaces.Discrete(3), "b": gym.spaces.Discrete(3), "c": moves}

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed, options=options)
        self.agents, self.t = list(self.possible_agents), 0
        self.world = self.np_random.normal(size=4).astype(np.float32)
        return self._observations(self._movers()), {}

    def _movers(self) -> list[str]:
        """Who is to act now."""
        return [agent for agent in self.agents if not self.turns or agent in ORDER[self.t % LENGTH]]

    def step(self, action_dict: dict):
        for agent in set(action_dict) - {"c"}:
            if self.masks and action_dict[agent] == self._forbidden(agent):
                raise RuntimeError(f"{agent} took the forbidden action {action_dict[agent]} at step {self.t}")
        assert sorted(action_dict) == self._movers()
        acting, self.t = list(self.agents), self.t + 1
        self.world = 0.9 * self.world + self.np_random.normal(size=4, scale=0.1).astype(np.float32)
        self.world[:2] += 0.1 * np.asarray(action_dict.get("c", (0.0, 0.0)), np.float32)
        rewards = {agent: float(self.world[i]) for i, agent in enumerate(acting)}
        dead = ["b"] if self.deaths and self.t == 3 else []
        self.agents = [agent for agent in acting if agent not in dead]
        terminated = {agent: agent in dead for agent in acting} | {"__all__": False}
        truncated = {agent: self.t == LENGTH and agent not in dead for agent in acting} | {"__all__": self.t == LENGTH}
        seen = acting if self.t == LENGTH else [agent for agent in acting if agent in dead or agent in self._movers()]
        return self._observations(seen), rewards, terminated, truncated, {}

    def state(self) -> np.ndarray:
        """What nobody sees alone, `[5]`."""
        return np.append(self.world, np.float32(self.t))

    @property
    def state_space(self) -> gym.Space:
        """Of `state()`."""
        return gym.spaces.Box(-np.inf, np.inf, (5,), np.float32)

    def _forbidden(self, agent: str) -> int:
        return (self.t + (agent == "b")) % 3

    def _observations(self, agents: list[str]) -> dict[str, Any]:
        seen = {agent: self.world + np.float32(i) for i, agent in enumerate(agents)}
        if self.images:  # each number in a row of its own
            seen = {agent: np.broadcast_to(_grey(numbers)[:, None, None], IMAGE).copy() for agent, numbers in seen.items()}
        if not self.masks:
            return seen
        allowed = {agent: (np.arange(3) != self._forbidden(agent)).astype(np.int8) for agent in agents}
        return {a: obs if a == "c" else {"observations": obs, "action_mask": allowed[a]} for a, obs in seen.items()}


def _grey(numbers: np.ndarray) -> np.ndarray:
    return np.clip(128 + 40 * numbers, 0, 255).astype(np.uint8)
