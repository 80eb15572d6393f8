"""A small game of all kinds of actions whose agents die, two of which share a module."""

import gymnasium as gym
import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv

MODULE_OF = {"a": "alone", "b": "pair", "c": "pair", "d": "many"}
EPISODE_LENGTH = 5  # always: agent d lives on, so a run can be cut between episodes


def module_of(agent, episode=None, **kwargs):
    return MODULE_OF[agent]


class MortalEnv(MultiAgentEnv):
    """Each agent observes three random numbers and how many are alive; it is rewarded by what others did, too."""

    def __init__(self, config):
        self.possible_agents = list(MODULE_OF)
        self.observation_spaces = dict.fromkeys(MODULE_OF, gym.spaces.Box(-10.0, 10.0, (4,), np.float32))
        pair = gym.spaces.Discrete(3)
        box, many = gym.spaces.Box(-1.0, 1.0, (2,), np.float32), gym.spaces.MultiDiscrete([2, 3])
        self.action_spaces = {"a": box, "b": pair, "c": pair, "d": many}
        super().__init__()

    def _obs(self, agents):
        return {agent: np.float32([*self.random.normal(size=3).clip(-3, 3), len(self.agents)]) for agent in agents}

    def reset(self, *, seed=None, options=None):
        self.random, self.time, self.agents = np.random.default_rng(seed), 0, list(MODULE_OF)
        return self._obs(self.agents), {}

    def step(self, actions):
        acting = list(self.agents)
        self.time += 1
        common = float(sum(np.sum(actions[agent]) for agent in acting)) / 4
        ends = {agent: bool(self.random.random() < 0.2) and agent != "d" for agent in acting}
        self.agents = [agent for agent in acting if not ends[agent]]
        over = self.time == EPISODE_LENGTH
        obs = self._obs(acting)
        rewards = {agent: common + k - float(np.abs(obs[agent]).mean()) for k, agent in enumerate(acting)}
        terminateds = {**ends, "__all__": False}
        truncateds = {**{agent: over and not ends[agent] for agent in acting}, "__all__": over}
        return obs, rewards, terminateds, truncateds, {}
