"""An environment that ignores its seed is noticed where several copies of it are to play different games."""

import logging

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from runners import make_runner

from rllib_maddpg.envs.seed_check import plays_alike

SEES = gym.spaces.Box(-9.0, 9.0, (2,))


class Walk(MultiAgentEnv):
    """A random walk for two; `env_config`: `start` and `steps` say whether these are drawn from the seed."""

    made = []

    def __init__(self, config=None):
        super().__init__()
        self.config = config
        self.possible_agents = self.agents = ["a", "b"]
        self.observation_spaces, self.action_spaces = dict.fromkeys("ab", SEES), dict.fromkeys("ab", gym.spaces.Discrete(3))
        self.made.append(self)

    def see(self):
        return {agent: self.at.astype(np.float32) for agent in "ab"}

    def reset(self, *, seed=None, options=None):
        self.starts, self.steps = (np.random.default_rng(seed if self.config[key] else 0) for key in ("start", "steps"))
        self.at, self.time = self.starts.normal(size=2), 0
        return self.see(), {}

    def step(self, actions):
        self.time += 1
        self.at = 0.9 * self.at + actions["a"] + 0.1 * self.steps.normal(size=2)
        return self.see(), {"a": float(self.at[0]), "b": 0.0}, {"__all__": False}, {"__all__": self.time >= 5}, {}


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(("start", "steps", "extra", "warned"), [(0, 0, 2, True), (0, 1, 2, False), (1, 0, 0, False)])
def test_only_what_plays_alike_is_warned_of(start, steps, extra, warned, fast, caplog):
    caplog.set_level(logging.WARNING, "rllib_maddpg.sampling.env_runner")
    runner = make_runner(Walk, {"start": start, "steps": steps}, num_envs=2, fast=fast)
    Walk.made.clear()
    for _ in range(3):
        runner.sample(num_timesteps=8)
    # Nothing is made where the first observations differ.
    assert len(Walk.made) == extra
    lines = [r.getMessage() for r in caplog.records if "whatever its seed" in r.getMessage()]
    assert len(lines) == warned
    if warned:
        assert lines[0].startswith("env='Walk' plays the same game") and "the 2 parallel envs" in lines[0]


def test_the_games_that_are_trained_on_stay_the_same():
    """Only the two copies are played."""
    rows = [
        make_runner(Walk, {"start": 0, "steps": 0}, num_envs=n).sample(num_timesteps=8 * n)[0].columns["obs"] for n in (1, 2)
    ]
    np.testing.assert_array_equal(rows[1][:8, :2][0], rows[0][0, :2])
    runner = make_runner(Walk, {"start": 0, "steps": 0}, num_envs=2)
    runner.sample(num_timesteps=8)
    assert [env.unwrapped.time for env in runner.env.envs] == [4, 4]


def test_one_env_or_another_runner_is_not_asked(caplog):
    for num_envs, worker_index in ((1, 0), (2, 2)):
        runner = make_runner(Walk, {"start": 0, "steps": 0}, num_envs, worker_index)
        Walk.made.clear()
        runner.sample(num_timesteps=8)
        assert Walk.made == []


@pytest.mark.parametrize(("worker_index", "warned"), [(1, True), (2, False)])
def test_single_envs_of_several_runners_are_compared(worker_index, warned, caplog):
    runner = make_runner(
        Walk, {"start": 0, "steps": 0}, worker_index=worker_index, change=lambda config: config.env_runners(num_env_runners=3)
    )
    runner.sample(num_timesteps=8)
    assert ("the 3 parallel envs are duplicates" in caplog.text) == warned


def test_parallel_envs_of_evaluations_are_compared(caplog):
    def change(config):
        config.in_evaluation = True

    make_runner(Walk, {"start": 0, "steps": 0}, num_envs=2, change=change).sample(num_timesteps=8)
    assert "the 2 parallel envs are duplicates" in caplog.text


def test_slow_envs_are_let_off(monkeypatch):
    assert plays_alike(lambda: Walk({"start": 0, "steps": 0})) is True
    monkeypatch.setattr("rllib_maddpg.envs.seed_check.SLOW", -1.0)
    assert plays_alike(lambda: Walk({"start": 0, "steps": 0})) is False
