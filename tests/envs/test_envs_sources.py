"""How classes and functions are called: with `env_config` as their one argument, or with its items as keywords."""

import functools
import sys
import types
from collections.abc import Callable
from typing import Annotated, Any

import gymnasium as gym
import pytest
from pettingzoo import ParallelEnv
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.tune.registry import ENV_CREATOR, _global_registry, register_env

from rllib_maddpg.envs import resolve_env
from rllib_maddpg.envs.calling import takes_config

BOX = gym.spaces.Box(-1.0, 1.0, (2,))
NOTHING = object()  # a parameter that was not given


class Zoo(ParallelEnv):
    """A PettingZoo game that says how it was made."""

    possible_agents = ["a", "b"]

    def __init__(self, shared_reward=True, max_cycles=25):
        self.got = {"shared_reward": shared_reward, "max_cycles": max_cycles}

    def observation_space(self, agent):
        return BOX

    action_space = observation_space


class OneKeyword(Zoo):
    def __init__(self, local_ratio=0.5):
        self.got = {"local_ratio": local_ratio}


class Inherited(Zoo):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


class WholeConfig(Zoo):
    def __init__(self, env_config=None, verbose=False):
        self.got = env_config


class Grid(gym.Env):
    """A Gymnasium env as its authors write it."""

    observation_space = action_space = BOX

    def __init__(self, render_mode=None, size=5):
        self.render_mode, self.got = render_mode, {"size": size}


class Game(MultiAgentEnv):
    """RLlib's convention under a name that is not RLlib's."""

    def __init__(self, settings=None):
        super().__init__()
        self.got = settings


class ManyKeywords(MultiAgentEnv):
    def __init__(self, num_agents=4, grid=5):
        super().__init__()
        self.got = {"num_agents": num_agents, "grid": grid}


def zoo_with_defaults(map_size=45, max_cycles=500):
    return Zoo(map_size, max_cycles)


def annotated(where: dict[str, Any] | None = None):
    return Zoo(**where)


def with_context(where: EnvContext, verbose=False):
    return Zoo(where.worker_index)


# make, env_config, what it is made with
CALLS = {
    "defaults": (Zoo, {}, {"shared_reward": True, "max_cycles": 25}),
    "keyword": (Zoo, {"max_cycles": 8}, {"shared_reward": True, "max_cycles": 8}),
    "one keyword": (OneKeyword, {}, {"local_ratio": 0.5}),
    "one keyword given": (OneKeyword, {"local_ratio": 0.1}, {"local_ratio": 0.1}),
    "star-args": (Inherited, {"max_cycles": 8}, {"shared_reward": True, "max_cycles": 8}),
    "partial": (functools.partial(Zoo, max_cycles=3), {}, {"shared_reward": True, "max_cycles": 3}),
    "whole config": (WholeConfig, {"x": 1}, {"x": 1}),
    "function": (zoo_with_defaults, {"map_size": 12}, {"shared_reward": 12, "max_cycles": 500}),
    "gym keywords": (Grid, {"size": 7}, {"size": 7}),
    "gym defaults": (Grid, {}, {"size": 5}),
    "lambda of one": (lambda x: Zoo(**x), {"max_cycles": 8}, {"shared_reward": True, "max_cycles": 8}),
    "underscore": (lambda _=NOTHING: Zoo(_ is not NOTHING), {}, {"shared_reward": True, "max_cycles": 25}),
    "annotated": (annotated, {"max_cycles": 8}, {"shared_reward": True, "max_cycles": 8}),
    "context": (with_context, EnvContext({}, worker_index=3), {"shared_reward": 3, "max_cycles": 25}),
}


@pytest.mark.parametrize("case", CALLS)
def test_keywords_or_the_whole_config(case):
    make, config, wanted = CALLS[case]
    assert resolve_env(make)(config).env.got == wanted


def test_multi_agent_envs_are_called_as_rllib_calls_them():
    assert resolve_env(Game)({"n": 3}).got == {"n": 3}
    assert resolve_env(Game)({}).got == {}
    assert resolve_env(ManyKeywords)({}).got == {"num_agents": 4, "grid": 5}


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda anything=None, max_cycles=3: Zoo(anything), {"shared_reward": {"max_cycles": 8}, "max_cycles": 25}),
        # What RLlib could not play or call.
        (Zoo, {"shared_reward": True, "max_cycles": 8}),
        (lambda **kwargs: Zoo(**kwargs), {"shared_reward": True, "max_cycles": 8}),
    ],
)
def test_a_registered_function_gets_the_config_as_in_rllib(make, wanted):
    register_env("test_sources_registered", make)
    try:
        assert resolve_env("test_sources_registered")({"max_cycles": 8}).env.got == wanted
    finally:
        _global_registry.unregister(ENV_CREATOR, "test_sources_registered")


def config_or_seed(config=None, seed=0):
    return Zoo()


def one_number(n):
    return Zoo(n)


def one_default(n=3):
    return Zoo(n)


def anything_goes(*args, **kwargs):
    return Zoo(*args, **kwargs)


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (config_or_seed, {"seed": 3}),
        (one_number, {"n": 3}),
        (one_default, {"m": 3}),
        (anything_goes, {"max_cycles": 3}),
        (Game, {"settings": 3}),
        # RLlib itself would make this the number of agents.
        (ManyKeywords, {"grid": 7}),
    ],
)
def test_where_both_could_be_meant_it_is_refused(make, config):
    with pytest.raises(ValueError) as info:
        resolve_env(make)(config)
    text = str(info.value)
    assert text.startswith(f"env={make.__qualname__!r} takes (")
    assert f"whether env_config={config} is its one argument, as RLlib has it, or keywords" in text
    assert "Name its first parameter `config`" in text and "`lambda config: make(**config)`" in text


def test_a_mistyped_keyword_does_not_become_a_config():
    with pytest.raises(ValueError, match=r"env_config\['max_cycle'\]=8: .* Did you mean 'max_cycles'\?.* name that parameter"):
        resolve_env(Zoo)({"max_cycle": 8})


@pytest.mark.parametrize(
    ("annotation", "wanted"),
    [
        (Callable[[dict], Any], False),
        (Annotated[int, []], False),
        (list[dict], False),
        (Annotated[dict, []], True),
        (EnvContext | None, True),
    ],
    ids=str,
)
def test_annotations_of_every_kind(annotation, wanted):
    def make(where=None):
        pass

    make.__annotations__["where"] = annotation
    assert takes_config("make", make, {}) is wanted


def test_string_annotations_count():
    scope = {"Zoo": Zoo}
    exec("from __future__ import annotations\ndef make(where: dict = None):\n    return Zoo(**where)", scope)
    assert takes_config("make", scope["make"], {"max_cycles": 8}) is True
    assert takes_config("make", one_default, {}) is False


def test_a_module_with_positional_parameters_and_a_registered_id(monkeypatch):
    module = types.ModuleType("my_battles")
    module.parallel_env = zoo_with_defaults
    monkeypatch.setitem(sys.modules, "my_battles", module)
    assert resolve_env("my_battles:parallel_env")({"map_size": 12}).env.got["shared_reward"] == 12
    gym.register("battles/Grid-v0", entry_point=Grid)
    try:
        env = resolve_env("my_battles:battles/Grid-v0")({"size": 9})
        assert env.unwrapped_env.got == {"size": 9}
    finally:
        del gym.registry["battles/Grid-v0"]
    with pytest.raises(ValueError, match=r"'my_battles' has no callable 'battles/Grid-v0'.* or an id that it registers"):
        resolve_env("my_battles:battles/Grid-v0")


def test_each_env_has_a_copy_of_its_config_to_itself():
    class Uses(Zoo):
        def __init__(self, config):
            self.got = config
            config["nested"]["list"].pop()

    handle = (i for i in range(3))  # cannot be copied
    config = EnvContext({"nested": {"list": [1, 2]}, "handle": handle}, worker_index=2)
    made = [resolve_env(Uses)(config).env.got for _ in range(2)]
    assert [got["nested"] for got in made] == [{"list": [1]}] * 2
    assert config["nested"] == {"list": [1, 2]}
    assert made[0]["handle"] is handle and made[0].worker_index == 2
