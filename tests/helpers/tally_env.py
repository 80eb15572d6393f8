"""An environment whose joint rows can be checked one by one wherever they were sampled, and the check."""

import time

import gymnasium as gym
import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv

AGENTS = ("a", "b")
EPISODE_LENGTH = 5
# Where an agent's observation holds what.
RUNNER, SEED_LOW, SEED_MIDDLE, SEED_HIGH, STEP, AGENT, ACTED = range(7)
WIDTH = 7


class TallyEnv(MultiAgentEnv):
    """Each agent observes (runner, seed of the episode in three parts, step, its own number, sum of all agents' last actions).

    `env_config`: `sleep`: seconds that each env step takes.
    """

    def __init__(self, config):
        self.runner, self.sleep = getattr(config, "worker_index", 0), config.get("sleep", 0.0)
        self.possible_agents = list(AGENTS)
        self.observation_spaces = dict.fromkeys(AGENTS, gym.spaces.Box(-1e6, 1e6, (WIDTH,), np.float32))
        self.action_spaces = dict.fromkeys(AGENTS, gym.spaces.Box(-1.0, 1.0, (2,), np.float32))
        super().__init__()

    def _obs(self, acted):
        head = [self.runner, self.seed % 1000, self.seed // 1000 % 1000, self.seed // 10**6, self.time]
        return {agent: np.float32([*head, k, acted]) for k, agent in enumerate(self.agents)}

    def reset(self, *, seed=None, options=None):
        self.seed, self.time, self.agents = int(seed), 0, list(AGENTS)
        return self._obs(0.0), {}

    def step(self, actions):
        time.sleep(self.sleep)
        self.time += 1
        obs = self._obs(float(sum(np.sum(actions[agent]) for agent in AGENTS)))
        rewards = {agent: self.time + k / 10 for k, agent in enumerate(AGENTS)}
        over = self.time == EPISODE_LENGTH
        ends = dict.fromkeys(AGENTS, over)
        return obs, rewards, {"__all__": False}, {**ends, "__all__": over}, {}


def broken_rows(columns):
    """Numbers of rows whose parts do not come from one env step, or that are there twice.

    Args:
        columns: Of a replay buffer, as in its `get_state()["columns"]`.
    """
    obs, new_obs = (columns[name].reshape(-1, len(AGENTS), WIDTH) for name in ("obs", "new_obs"))
    acted = columns["actions"].sum(1)
    same = (obs[:, :, :AGENT] == obs[:, :1, :AGENT]).all((1, 2)) & (new_obs[:, :, :STEP] == obs[:, :1, :STEP]).all((1, 2))
    follows = (new_obs[:, :, STEP] == obs[:, :, STEP] + 1).all(1)
    owners = (obs[:, :, AGENT] == np.arange(len(AGENTS))).all(1) & (new_obs[:, :, AGENT] == np.arange(len(AGENTS))).all(1)
    actions = np.abs(new_obs[:, :, ACTED] - acted[:, None]).max(1, initial=0) < 1e-4
    rewards = np.abs(columns["rewards"] - new_obs[:, :, STEP] - np.arange(len(AGENTS)) / 10).max(1, initial=0) < 1e-5
    lives = (columns["terminateds"] == 0).all(1) & (columns["alive"] == 1).all(1) & (columns["next_alive"] == 1).all(1)
    _, first, counts = np.unique(obs[:, 0, : STEP + 1], axis=0, return_index=True, return_counts=True)
    twice = np.zeros(len(obs), bool)
    twice[first[counts > 1]] = True
    return np.flatnonzero(~(same & follows & owners & actions & rewards & lives) | twice).tolist()
