"""Names, classes and callables: which env they give, and what the errors say."""

import sys
import types

import cloudpickle
import gymnasium as gym
import pytest
from mpe2 import simple_spread_v3
from pettingzoo import ParallelEnv
from pettingzoo.classic import tictactoe_v3
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from ray.tune.registry import ENV_CREATOR, _global_registry, register_env

from rllib_maddpg.envs import EnvCreator, ParallelPettingZoo, SingleAgentGame, TurnBasedPettingZoo, resolve_env


class OneAgentGame(MultiAgentEnv):
    """A `MultiAgentEnv` of the user's own; keeps the config it was given."""

    def __init__(self, config=None):
        self.config = config
        self.possible_agents = self.agents = ["solo"]
        super().__init__()
        self.observation_spaces = self.action_spaces = {"solo": gym.spaces.Discrete(2)}


@pytest.fixture
def registered():
    names = []

    def register(name, creator):
        register_env(name, creator)
        names.append(name)

    yield register
    for name in names:
        _global_registry.unregister(ENV_CREATOR, name)


@pytest.fixture
def user_module(monkeypatch):
    module = types.ModuleType("my_games")
    module.OneAgentGame = OneAgentGame
    module.spread = lambda config: simple_spread_v3.parallel_env(**config)
    module.number = 3
    monkeypatch.setitem(sys.modules, "my_games", module)


@pytest.mark.parametrize(
    ("name", "agents"),
    [
        ("simple_adversary", ["adversary_0", "agent_0", "agent_1"]),
        ("simple_adversary_v3", ["adversary_0", "agent_0", "agent_1"]),
        ("mpe2/simple_speaker_listener_v4", ["listener_0", "speaker_0"]),
        ("mpe2/simple_spread", ["agent_0", "agent_1", "agent_2"]),
        ("simple", ["agent_0"]),
        ("sisl/pursuit_v5", [f"pursuer_{i}" for i in range(8)]),
        ("classic/rps_v2", ["player_0", "player_1"]),
    ],
)
def test_pettingzoo_names(name, agents):
    env = resolve_env(name)({})
    assert isinstance(env, ParallelPettingZoo)
    assert env.possible_agents == agents
    env.close()


def test_keywords_reach_the_env_and_mpe2_keeps_its_defaults():
    env = resolve_env("simple_spread")({"N": 4, "max_cycles": 7})
    assert len(env.possible_agents) == 4
    assert env.unwrapped_env.max_cycles == 7
    assert env.get_action_space("agent_3") == gym.spaces.Discrete(5)
    env = resolve_env("simple_spread")()
    assert env.unwrapped_env.max_cycles == 25
    env = resolve_env("simple_spread")({"continuous_actions": True})
    assert env.get_action_space("agent_0") == gym.spaces.Box(0.0, 1.0, (5,))


def test_gymnasium_names():
    env = resolve_env("Pendulum-v1")({"g": 9.0, "max_episode_steps": 10})
    assert isinstance(env, SingleAgentGame)
    assert env.unwrapped_env.g == 9.0
    assert env.env.spec.max_episode_steps == 10


def test_a_registered_name_wins(registered):
    registered("simple_adversary", OneAgentGame)
    context = EnvContext({"size": 2, "wrappers": []}, worker_index=5)
    env = resolve_env("simple_adversary")(context)
    assert env.possible_agents == ["solo"]
    assert env.config == {"size": 2}
    assert env.config.worker_index == 5
    assert context == {"size": 2, "wrappers": []}


def test_registering_our_creator_does_not_adapt_twice(registered):
    registered("my_spread", resolve_env("simple_spread"))
    creator = resolve_env("my_spread")
    assert creator == resolve_env("simple_spread") == resolve_env(creator)
    env = creator({"wrappers": [["frame_stack_v2", {"stack_size": 2}]]})
    assert env.get_observation_space("agent_0").shape == (36,)


def test_module_and_callable(user_module):
    assert isinstance(resolve_env("my_games:OneAgentGame")({"a": 1}), OneAgentGame)
    assert len(resolve_env("my_games:spread")({"N": 2}).possible_agents) == 2


def test_callables_and_classes():
    assert resolve_env(OneAgentGame)({"a": 1}).config == {"a": 1}
    assert len(resolve_env(lambda config: simple_spread_v3.parallel_env(**config))({"N": 2}).possible_agents) == 2
    # Takes keywords only.
    assert len(resolve_env(simple_spread_v3.parallel_env)({"N": 2}).possible_agents) == 2


def test_an_aec_env_becomes_parallel():
    env = resolve_env(lambda config: simple_spread_v3.env(**config))({"max_cycles": 3})
    assert isinstance(env, ParallelPettingZoo)
    observations, _ = env.reset(seed=0)
    assert sorted(observations) == env.possible_agents
    for step in range(3):
        *_, truncateds, _ = env.step(dict.fromkeys(env.agents, 0))
        assert truncateds["__all__"] is (step == 2)


def test_rllibs_own_adapter_is_taken_as_it_is():
    env = resolve_env(lambda config: ParallelPettingZooEnv(simple_spread_v3.parallel_env()))({})
    assert type(env) is ParallelPettingZooEnv


@pytest.mark.parametrize("env", ["simple_spread", "sisl/pursuit_v5", "Pendulum-v1", OneAgentGame, lambda _: OneAgentGame()])
def test_creators_can_be_pickled(env):
    creator = cloudpickle.loads(cloudpickle.dumps(resolve_env(env)))
    assert isinstance(creator, EnvCreator)
    assert isinstance(creator(EnvContext({}, worker_index=1)), MultiAgentEnv)


def error_of(env, config=None):
    with pytest.raises(ValueError) as info:
        resolve_env(env)({} if config is None else config)
    return str(info.value)


def test_unknown_names_list_what_is_allowed_and_near_misses(registered):
    text = error_of("simple_adversry")
    assert text.startswith("env='simple_adversry' is not known. Did you mean 'simple_adversary'")
    for allowed in (
        "register_env",
        "simple_world_comm_v3",
        "sisl/multiwalker_v9",
        "Pendulum-v1",
        "package.module:callable",
    ):
        assert allowed in text
    assert "'simple_spread_v3'" in error_of("simple_spread_v2")
    assert "'sisl/pursuit_v5'" in error_of("sisl/pursuit_v4")
    assert "'Pendulum-v1'" in error_of("Pendulumm-v1")
    assert "Please use `Pendulum-v1` instead" in error_of("Pendulum-v0")
    registered("warehouse", OneAgentGame)
    assert "'warehouse'" in error_of("warehous")


def test_unknown_modules_and_attributes(user_module):
    text = error_of("no_such_package.games:Game")
    assert "env='no_such_package.games:Game'" in text
    assert "No module named 'no_such_package'" in text
    assert "PYTHONPATH" in text
    assert "no callable 'OneAgentGam'. Did you mean 'OneAgentGame'?" in error_of("my_games:OneAgentGam")
    assert "no callable 'number'" in error_of("my_games:number")


def test_missing_packages_name_the_pip_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "Box2D", None)
    monkeypatch.delitem(sys.modules, "pettingzoo.sisl.multiwalker_v9", raising=False)
    text = error_of("sisl/multiwalker_v9")
    assert "env='sisl/multiwalker_v9' needs a package that is not installed" in text
    assert "pip install 'pettingzoo[sisl]'" in text
    assert "gymnasium[box2d]" in error_of("LunarLander-v3")

    monkeypatch.setitem(sys.modules, "mpe2", None)
    assert "pip install mpe2" in error_of("mpe2/simple_spread")
    assert "pip install mpe2" in error_of("simple_spread")


def test_wrong_keywords_name_the_key_and_the_allowed_ones():
    text = error_of("simple_spread", {"max_cycle": 30})
    assert text.startswith("env_config['max_cycle']=30: env='simple_spread' takes no such keyword. Did you mean 'max_cycles'?")
    assert "'local_ratio'" in text
    assert "Rename the key" in text
    text = error_of("Pendulum-v1", {"gravity": 9.0})
    assert text.startswith("env_config['gravity']=9.0: env='Pendulum-v1'")
    assert "'render_mode', 'g'" in text
    assert "env_config['size']" in error_of(lambda *, n=3: OneAgentGame(), {"size": 2})


def test_errors_inside_the_env_stay_as_they_are():
    def creator(config):
        raise TypeError("not ours")

    with pytest.raises(TypeError, match="not ours"):
        resolve_env(creator)({})


def test_games_of_turns_stay_such():
    for env in ("classic/tictactoe_v3", lambda config: tictactoe_v3.env()):
        game = resolve_env(env)({})
        assert type(game) is TurnBasedPettingZoo and game.possible_agents == ["player_1", "player_2"]


def test_what_is_no_env_is_refused():
    assert error_of(3) == "env=3 is a int. Give a name, an env class or a callable that makes an env."
    text = error_of(lambda config: "no env")
    assert "makes a str" in text
    assert "It must make an RLlib MultiAgentEnv" in text


def test_plain_parallel_class_takes_the_config():
    class Game(ParallelEnv):
        def __init__(self, config):
            self.possible_agents = config["names"]

        def observation_space(self, agent):
            return gym.spaces.Discrete(2)

        action_space = observation_space

    assert resolve_env(Game)({"names": ["b", "a"]}).possible_agents == ["a", "b"]
