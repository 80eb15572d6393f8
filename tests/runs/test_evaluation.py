"""Evaluation: estimates by hand numbers, episodes shared out over envs, checkpoints that do not fit."""

import json
import math
import pickle
import shutil

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.algorithm.checkpoints import load_config
from rllib_maddpg.envs import EpisodeRecord
from rllib_maddpg.runs.evaluation import Estimate, Evaluation, evaluate_algorithm, evaluate_checkpoint


def test_interval_by_hand():
    # Mean 3, sample variance (4 + 1 + 0 + 1 + 4) / 4 = 2.5, standard error sqrt(2.5 / 5) = 0.70711.
    estimate = Estimate.of([1, 2, 3, 4, 5])
    assert estimate.mean == 3
    assert estimate.low == pytest.approx(3 - 1.96 * 0.7071068, abs=1e-6)
    assert estimate.high == pytest.approx(3 + 1.96 * 0.7071068, abs=1e-6)


def test_one_episode_has_no_interval_and_json_gets_null():
    one = Estimate.of([4.0])
    assert one.mean == 4.0 and math.isnan(one.low) and math.isnan(one.high)
    data = Evaluation.of([EpisodeRecord({"a": 1.0, "b": 3.0}, 7)]).to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["team_return"] == {"mean": 4.0, "low": None, "high": None}


def test_an_agents_return_is_over_the_episodes_that_it_played():
    records = [
        EpisodeRecord({"b": 2.0, "a": 1.0}, 10, {"reach": 1.0}),
        EpisodeRecord({"b": 4.0}, 20, {"reach": 0.0}),
        EpisodeRecord({"b": 0.0, "a": 0.0}, 30, {"reach": 0.5}),
    ]
    result = Evaluation.of(records)
    assert result.episodes == 3
    assert result.team.mean == pytest.approx(7 / 3)  # (3 + 4 + 0) / 3
    # A return of 0 counts, an absence does not.
    assert {agent: e.mean for agent, e in result.agents.items()} == {"a": 0.5, "b": 2.0}
    assert list(result.agents) == ["a", "b"]
    assert (result.length.mean, result.metrics["reach"].mean) == (20.0, 0.5)


class Guests(MultiAgentEnv):
    """Episodes of 3 steps. Agent "a" is always there and earns nothing; "b" is in odd episodes only; "c" joins after the first
    step; "d" would join in the last step, and never acts. All that are there but "a" earn 1 a step. Absent agents are given
    rewards of 0, which are no part in the game."""

    def __init__(self, config=None):
        super().__init__()
        self.possible_agents = list("abcd")
        self.observation_spaces = dict.fromkeys("abcd", gym.spaces.Box(-1, 1, (2,), np.float32))
        self.action_spaces = dict.fromkeys("abcd", gym.spaces.Box(-1, 1, (1,), np.float32))
        self.episode = 0

    def _seen(self, agents):
        return {agent: np.zeros(2, np.float32) for agent in agents}

    def reset(self, *, seed=None, options=None):
        self.episode, self.time = self.episode + 1, 0
        self.agents = list("ab" if self.episode % 2 else "a")
        return self._seen(self.agents), {}

    def step(self, actions):
        self.time += 1
        rewards = {agent: float(agent != "a" and agent in actions) for agent in self.possible_agents}
        if self.time == 1:
            self.agents = [*self.agents, "c"]
        seen, over = self.agents, self.time == 3
        if over:
            seen = [*self.agents, "d"]
        return self._seen(seen), rewards, {"__all__": False}, {"__all__": over}, {}


@pytest.mark.parametrize("fast", [True, False])
def test_training_and_evaluation_mean_the_same_by_an_agents_return(ray_session, build, tmp_path, fast):
    config = MADDPGConfig().environment(Guests).debugging(seed=0).env_runners(env_runner_fast_path=fast)
    config.reporting(min_sample_timesteps_per_iteration=12).rl_module(model_config={"fcnet_hiddens": [8]})
    config.training(num_env_steps_per_update=12, train_batch_size_per_learner=8, replay_buffer_config={"capacity": 100})
    algo = build(config)
    trained = algo.train()["env_runners"]["agent_episode_returns_mean"]
    algo.save_to_path(str(tmp_path))
    played = evaluate_checkpoint(tmp_path, episodes=4, num_envs=2).agents
    want = {"a": 0.0, "b": 3.0, "c": 2.0}
    assert {agent: float(trained[agent]) for agent in want} == want
    assert {agent: estimate.mean for agent, estimate in played.items()} == want


@pytest.mark.parametrize("reward", [None, "high"])
def test_a_reward_that_is_not_a_number_is_named(ray_session, tmp_path, reward):
    class Bad(Guests):
        def step(self, actions):
            result = super().step(actions)
            result[1]["a"] = reward
            return result

    algo = MADDPGConfig().environment(Bad).build_algo()
    algo.save_to_path(str(tmp_path))
    algo.stop()
    with pytest.raises(ValueError, match=f"The reward of agent 'a' is {reward!r} at step 1"):
        evaluate_checkpoint(tmp_path, episodes=1)


@pytest.fixture(scope="module")
def trained(ray_session, tmp_path_factory):
    """A fresh algorithm and its checkpoint."""
    config = MADDPGConfig().environment("simple_adversary", env_config={"max_cycles": 5}).debugging(seed=3)
    algo = config.build_algo()
    path = tmp_path_factory.mktemp("checkpoint")
    algo.save_to_path(str(path))
    yield algo, path
    algo.stop()


def test_checkpoint_and_algorithm_play_the_same_games(trained):
    algo, path = trained
    from_checkpoint = evaluate_checkpoint(path, episodes=6, seed=1).to_dict()
    assert from_checkpoint == evaluate_algorithm(algo, episodes=6, seed=1).to_dict()
    assert from_checkpoint != evaluate_checkpoint(path, episodes=6, seed=2).to_dict()
    assert from_checkpoint["episodes"] == 6
    assert from_checkpoint["episode_length"] == {"mean": 5.0, "low": 5.0, "high": 5.0}
    assert set(from_checkpoint["metrics"]) == {"good_success", "adversary_success", "good_distance"}
    team = sum(e["mean"] for e in from_checkpoint["agent_return"].values())
    assert from_checkpoint["team_return"]["mean"] == pytest.approx(team)


@pytest.mark.parametrize(("episodes", "num_envs"), [(5, 16), (5, 2)])
def test_frames_are_those_of_the_first_episodes_and_change_no_number(trained, episodes, num_envs):
    _, path = trained
    plain = evaluate_checkpoint(path, episodes=episodes, num_envs=num_envs)
    filmed = evaluate_checkpoint(path, episodes=episodes, num_envs=num_envs, record_frames=3)
    assert plain.frames == []
    # A frame after the reset and one after each of 5 steps.
    assert len(filmed.frames) == 3 * 6
    assert filmed.frames[0].shape == (700, 700, 3) and filmed.frames[0].dtype == np.uint8
    assert filmed.to_dict() == plain.to_dict()


def test_env_config_overrides_and_must_fit_the_actors(trained):
    _, path = trained
    assert evaluate_checkpoint(path, episodes=2, env_config={"max_cycles": 9}).length.mean == 9
    with pytest.raises(ValueError, match="takes no such keyword"):
        evaluate_checkpoint(path, episodes=2, env_config={"max_cycle": 9})
    with pytest.raises(ValueError, match="agent_2"):
        evaluate_checkpoint(path, episodes=2, env_config={"N": 3})


def test_a_damaged_or_missing_checkpoint_is_named(trained, tmp_path):
    _, path = trained
    with pytest.raises(ValueError, match=r"no checkpoint: it has no rllib_checkpoint\.json"):
        evaluate_checkpoint(tmp_path, episodes=1)
    with pytest.raises(ValueError, match="`episodes`=0 must be at least 1"):
        evaluate_checkpoint(path, episodes=0)
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    weights = copy / "learner_group" / "learner" / "rl_module" / "agent_0" / "module_state.pkl"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"copy is damaged .*Use an earlier checkpoint"):
        evaluate_checkpoint(copy, episodes=1)
    constructor = copy / "class_and_ctor_args.pkl"
    constructor.write_bytes(constructor.read_bytes()[:100])
    with pytest.raises(ValueError, match="copy is damaged"):
        load_config(copy)


def test_another_algorithms_checkpoint_is_refused(tmp_path):
    from ray.rllib.algorithms.ppo import PPOConfig

    content = {"class": None, "ctor_args_and_kwargs": ((PPOConfig().get_state(),), {})}
    (tmp_path / "rllib_checkpoint.json").write_text("{}")
    (tmp_path / "class_and_ctor_args.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="is one of PPO, not of MADDPG"):
        load_config(tmp_path)


class Blind(gym.Env):
    """Two steps of no reward; takes any settings and draws nothing."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, config):
        pass

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros(2, np.float32), 0.0, self.time == 2, False, {}


def test_an_env_that_draws_nothing_cannot_be_filmed(ray_session, tmp_path):
    algo = MADDPGConfig().environment(Blind).build_algo()
    algo.save_to_path(str(tmp_path))
    algo.stop()
    assert evaluate_checkpoint(tmp_path, episodes=2).length.mean == 2
    with pytest.raises(ValueError, match=r"cannot be filmed: its `render_mode` is None"):
        evaluate_checkpoint(tmp_path, episodes=1, record_frames=1)
