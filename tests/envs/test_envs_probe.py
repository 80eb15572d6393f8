"""Agents and spaces, read once."""

import sys
import types

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rllib_maddpg import MADDPG, MADDPGConfig
from rllib_maddpg.envs import EnvSpaces, probe_env

BOX = gym.spaces.Box(-1, 1, (3,))
ACTION = gym.spaces.Discrete(4)


class Counted(MultiAgentEnv):
    """Counts how often it was built and closed."""

    built = closed = 0

    def __init__(self, config):
        type(self).built += 1
        self.possible_agents = self.agents = config.get("agents", ["b", "a"])
        super().__init__()
        self.observation_spaces = dict.fromkeys(self.agents, BOX)
        self.action_spaces = dict.fromkeys(self.agents, ACTION)

    def close(self):
        type(self).closed += 1


@pytest.fixture(autouse=True)
def no_counts():
    Counted.built = Counted.closed = 0


def test_simple_adversary():
    spaces = probe_env("simple_adversary", {"continuous_actions": True})
    assert spaces.agents == ("adversary_0", "agent_0", "agent_1")
    assert [space.shape for space in spaces.observation_spaces.values()] == [(8,), (10,), (10,)]
    assert list(spaces.observation_spaces) == list(spaces.action_spaces) == list(spaces.agents)
    assert spaces.action_spaces["agent_0"] == gym.spaces.Box(0.0, 1.0, (5,))
    with pytest.raises(AttributeError):
        spaces.agents = ()


def test_builds_once_per_env_and_config():
    config = {"n": np.arange(5000)}
    first = probe_env(Counted, config)
    assert first == EnvSpaces(("a", "b"), {"a": BOX, "b": BOX}, {"a": ACTION, "b": ACTION})
    assert (Counted.built, Counted.closed) == (1, 1)
    assert probe_env(Counted, {"n": np.arange(5000)}) is first
    assert Counted.built == 1
    other = np.arange(5000)
    other[2500] = 0  # the same repr
    probe_env(Counted, {"n": other})
    assert Counted.built == 2
    assert probe_env(Counted, {"agents": ["x"]}).agents == ("x",)


def test_a_class_defined_anew_is_another_env():
    def define(agent):
        class Game(Counted):
            def __init__(self, config):
                super().__init__({"agents": [agent]})

        return Game

    assert [probe_env(define(agent)).agents for agent in "abcab"] == [("a",), ("b",), ("c",), ("a",), ("b",)]


def test_a_module_loaded_anew_gives_another_env(monkeypatch):
    module = types.ModuleType("my_reloaded_games")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for agent in "ab":
        body = {
            "__module__": module.__name__,
            "__init__": lambda self, _, a=agent: Counted.__init__(self, {"agents": [a]}),
        }
        module.Game = type("Game", (Counted,), body)
        # Both classes pickle to the same name.
        assert probe_env(module.Game).agents == (agent,)


def test_configs_that_cannot_be_pickled_are_not_kept():
    config = {"generator": (i for i in range(3))}
    assert probe_env(Counted, config).agents == probe_env(Counted, config).agents
    assert Counted.built == 2


def test_agents_that_are_no_strings():
    assert probe_env(Counted, {"agents": [10, 2, 1]}).agents == (1, 10, 2)


class OnlySpaces(MultiAgentEnv):
    """Names its agents in one place only, that of `config["by"]`."""

    def __init__(self, config):
        super().__init__()
        self.by = config["by"]
        if self.by == "dicts":
            self.observation_spaces, self.action_spaces = {"b": BOX, "a": BOX}, {"b": ACTION, "a": ACTION}
        if self.by == "gym_dicts":
            self.observation_space = gym.spaces.Dict({"b": BOX, "a": BOX})
            self.action_space = gym.spaces.Dict({"b": ACTION, "a": ACTION})

    def reset(self, *, seed=None, options=None):
        return {"b": BOX.sample(), "a": BOX.sample()}, {}

    def get_observation_space(self, agent_id):
        return BOX if self.by == "methods" else super().get_observation_space(agent_id)

    def get_action_space(self, agent_id):
        return ACTION if self.by == "methods" else super().get_action_space(agent_id)


@pytest.mark.parametrize("by", ["dicts", "gym_dicts", "methods"])
def test_all_ways_to_define_spaces(by):
    spaces = probe_env(OnlySpaces, {"by": by})
    assert spaces == EnvSpaces(("a", "b"), {"a": BOX, "b": BOX}, {"a": ACTION, "b": ACTION})


def test_missing_spaces_name_the_agent_and_the_mend():
    with pytest.raises(ValueError, match=r"has None for agent 'a' in its observation_spaces. Set `observation_spaces`"):
        probe_env(OnlySpaces, {"by": "nothing"})


def test_errors_of_the_constructor_are_chained():
    def broken(config):
        raise RuntimeError("no display")

    with pytest.raises(
        ValueError, match=r"broken' could not be built with env_config=\{'x': 1\}: RuntimeError: no disp"
    ) as info:
        probe_env(broken, {"x": 1})
    assert isinstance(info.value.__cause__, RuntimeError)
    assert "Fix env_config" in str(info.value)


def test_errors_of_the_resolver_stay_as_they_are():
    with pytest.raises(ValueError, match=r"^env='simple_sprea' is not known"):
        probe_env("simple_sprea", {})
    with pytest.raises(ValueError, match=r"^env_config\['M'\]=3"):
        probe_env("simple_spread", {"M": 3})


# ------------------------------------------------------------------------------------------ where it is built


class Contexts(Counted):
    """An env that reads RLlib's context, and is not to be had in the process of the algorithm."""

    def __init__(self, config):
        if config["only_remote"] and config.worker_index == 0:
            raise RuntimeError("no licence here")
        agents = [f"{config.worker_index}-{config.vector_index}-{config.num_workers}-{config.remote}", "b"]
        super().__init__({"agents": agents if config["tell"] else ["a", "b"]})


def test_the_env_gets_a_context():
    assert probe_env(Contexts, {"only_remote": False, "tell": True}).agents == ("0-0-0-False", "b")
    assert probe_env(Contexts, {"only_remote": False, "tell": 1}, num_env_runners=3).agents == ("0-0-3-False", "b")


def test_an_env_that_cannot_be_built_here_is_built_where_it_can(ray_session):
    config = {"only_remote": True, "tell": True}
    with pytest.raises(ValueError, match=r"could not be built with .*: RuntimeError: no licence here") as info:
        probe_env(Contexts, config)
    assert "runner" not in str(info.value)
    assert probe_env(Contexts, config, num_env_runners=2).agents == ("1-0-2-False", "b")


def test_an_env_that_cannot_be_built_anywhere_says_both_errors(ray_session):
    def broken(config):
        raise RuntimeError(f"no display for {config.worker_index}")

    with pytest.raises(ValueError, match=r"no display for 0.* as on env runner 1: .* RuntimeError: no display for 1"):
        probe_env(broken, {}, num_env_runners=1)


def test_a_mistyped_keyword_is_not_tried_elsewhere():
    with pytest.raises(ValueError, match=r"^env_config\['M'\]=3") as info:
        probe_env("simple_spread", {"M": 3}, num_env_runners=2)
    assert "ray.init" not in str(info.value) and "another process" not in str(info.value)


def play(self, actions):
    return {agent: BOX.sample() for agent in "ab"}, {"a": 1.0, "b": 2.0}, {"__all__": False}, {"__all__": True}, {}


@pytest.mark.usefixtures("ray_session")
def test_training_where_only_remote_runners_may_have_the_env(build, tmp_path):
    """The env comes from a function, which RLlib itself does not take."""
    game = type("Game", (Contexts,), {"step": play, "reset": lambda self, **kwargs: (play(self, {})[0], {})})
    config = MADDPGConfig().environment(lambda config: game(config), env_config={"only_remote": True, "tell": False})
    config.env_runners(num_env_runners=1).reporting(min_sample_timesteps_per_iteration=50)
    config.training(train_batch_size_per_learner=8, num_steps_sampled_before_learning_starts=10)
    algo = build(config)
    returns = algo.train()["env_runners"]["agent_episode_returns_mean"]
    assert returns == {"a": 1.0, "b": 2.0}
    algo.save_to_path(tmp_path)
    restored = MADDPG.from_checkpoint(tmp_path)
    try:
        assert restored.train()["num_env_steps_sampled_lifetime"] >= 100
    finally:
        restored.stop()
