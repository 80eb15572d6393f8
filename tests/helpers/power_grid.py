"""A power grid's numbers: observations of 1e4, of which the last digits matter, and rewards of 1e-3. The best play is known."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rllib_maddpg import MADDPGConfig

STEPS = 10  # of an episode
REWARD = 1e-3
# What "never move" earns in a step, on average: REWARD * (E t^2 + E (t_north + t_south)^2 / 2), where E t^2 = 1/6.
STANDING_STILL = -REWARD / 3.0


class PowerGrid(MultiAgentEnv):
    """Two plants, each of which is to meet the load of its own region.

    A plant observes the demand, 1e4 +- 1e3 kW, the voltage of its line, 1e4 +- 1 V, and the nominal voltage, 1e4 V. With the
    demand as 1e4 + 1e3 u and the voltage as 1e4 + w, and u and w even between -1 and 1, its best output is t = (u + w) / 2, a
    number between -1 and 1 like its action a. It earns -1e-3 ((a - t)^2 + (sum of both regions' a - t)^2 / 2), so that the best
    that both can do is a = t, which earns 0. What they do changes nothing of later loads.
    """

    def __init__(self, config=None):
        super().__init__()
        self.possible_agents = self.agents = ["north", "south"]
        self.observation_spaces = dict.fromkeys(self.agents, gym.spaces.Box(0.0, 2e4, (3,), np.float32))
        self.action_spaces = dict.fromkeys(self.agents, gym.spaces.Box(-1.0, 1.0, (1,), np.float32))

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.time = 0
        return self._observe(), {}

    def _observe(self):
        self.load = self.rng.uniform(-1.0, 1.0, (2, 2))
        return {
            agent: np.array([1e4 + 1e3 * u, 1e4 + w, 1e4], np.float32)
            for agent, (u, w) in zip(self.agents, self.load, strict=True)
        }

    def step(self, actions):
        self.time += 1
        missing = np.array([float(actions[agent][0]) for agent in self.agents]) - self.load.mean(1)
        costs = np.square(missing) + np.square(missing.sum()) / 2.0
        rewards = {agent: float(-REWARD * cost) for agent, cost in zip(self.agents, costs, strict=True)}
        ends = {"__all__": self.time == STEPS}
        return self._observe(), rewards, {"__all__": False}, ends, {}


def grid_config(seed: int, **settings) -> MADDPGConfig:
    """Trains in some seconds; `settings` go to `training()`."""
    config = MADDPGConfig().environment(PowerGrid, disable_env_checking=True).debugging(seed=seed)
    config.training(
        lr=0.005,
        gamma=0.5,
        tau=0.05,
        train_batch_size_per_learner=128,
        num_env_steps_per_update=8,
        num_steps_sampled_before_learning_starts=400,
        replay_buffer_config={"capacity": 10_000},
        noise_scale=0.3,
        **settings,
    )
    config.env_runners(num_envs_per_env_runner=8).rl_module(model_config={"fcnet_hiddens": [32, 32]})
    return config.reporting(min_sample_timesteps_per_iteration=1000)


def regret_of(algo, episodes: int = 40) -> float:
    """What is lost to the best play in noise-free episodes, as a share of what is lost by standing still: 0 is the best."""
    (rollout,) = algo.env_runner.sample(num_episodes=episodes, explore=False, force_reset=True)
    return float(rollout.columns["rewards"].mean() / STANDING_STILL)
