"""Action masks in infos: found by the first reset, observed beside the observation, and missed by name."""

import random

import gymnasium as gym
import numpy as np
import pytest
from masked_game import ACTIONS, NVEC, WIDTHS, MaskedGame
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.envs import EnvError, probe_env, resolve_env
from rllib_maddpg.envs.errors import EnvFailure
from rllib_maddpg.envs.masks import MASKS_KEY, MasksFromInfos, allowed_action
from rllib_maddpg.envs.seed_check import plays_alike

INFOS = {"where": "infos"}
MASKED = ["a", "b", "d"]


def game_config(env=MaskedGame, **env_config):
    return MADDPGConfig().environment(env, env_config=env_config, disable_env_checking=True)


def test_the_probe_finds_who_has_masks():
    spaces = probe_env(MaskedGame, INFOS)
    assert spaces.info_masks == ("a", "b", "d") and spaces.action_spaces == ACTIONS
    for agent, sizes in NVEC.items():
        seen = gym.spaces.Box(-10.0, 10.0, (WIDTHS[agent],))
        mask = gym.spaces.Box(0, 1, (sum(sizes),), np.int8)
        assert spaces.observation_spaces[agent] == gym.spaces.Dict({"observation": seen, "action_mask": mask})
    assert spaces.observation_spaces["c"] == gym.spaces.Box(-10.0, 10.0, (4,))
    for where in ("observation", "observations", "tuple"):
        assert probe_env(MaskedGame, {"where": where}).info_masks == ()


def test_a_config_says_so_where_others_read_it():
    config = game_config(**INFOS)
    config.validate()
    assert config.env_config == {**INFOS, MASKS_KEY: MASKED}
    config.validate()
    assert config.env_config == {**INFOS, MASKS_KEY: MASKED}
    env = resolve_env(config.env)(config.env_config)
    assert isinstance(env, MasksFromInfos) and isinstance(env.unwrapped_env, MaskedGame) and env.unwrapped is env
    assert env.observation_spaces == probe_env(MaskedGame, INFOS).observation_spaces


def test_observations_have_the_masks():
    """Those of the game; zeros for agents that end, which have none."""
    env = resolve_env(MaskedGame)({**INFOS, MASKS_KEY: MASKED, "deaths": 1.0})
    observations, infos = env.reset(seed=1)
    game = env.unwrapped_env
    for agent in MASKED:
        assert observations[agent].keys() == {"observation", "action_mask"}
        np.testing.assert_array_equal(observations[agent]["action_mask"], game.masks[agent])
        assert env.observation_spaces[agent].contains(observations[agent])
        np.testing.assert_array_equal(infos[agent]["action_mask"], game.masks[agent])
    assert observations["c"].shape == (4,)
    first = [np.split(game.masks[a], np.cumsum(NVEC[a])[:-1]) for a in MASKED]
    a, b, d = ([part.argmax() for part in parts] for parts in first)
    observations, _, terminateds, _, _ = env.step({"a": a[0], "b": np.array(b), "c": np.zeros(2), "d": d[0] + 5})
    assert terminateds["d"] and env.agents == ["a", "b", "c"]
    np.testing.assert_array_equal(observations["d"]["action_mask"], [0, 0, 0])
    np.testing.assert_array_equal(observations["a"]["action_mask"], game.masks["a"])


class Late(MultiAgentEnv):
    """Agent b is not there at first; c chooses, too. `env_config`: who has masks, and of which length."""

    resets = 0

    def __init__(self, config):
        super().__init__()
        self.masked, self.length, self.fails = config["masked"], config.get("length", 3), config.get("fails", False)
        self.possible_agents = list("abc")
        self.observation_spaces = dict.fromkeys("abc", gym.spaces.Box(-1, 1, (2,)))
        self.action_spaces = dict.fromkeys("abc", gym.spaces.Discrete(3))

    def observe(self, agents):
        self.agents = list(agents)
        masks = {a: {"action_mask": np.ones(self.length)} if a in self.masked else {} for a in agents}
        return dict.fromkeys(agents, np.zeros(2, np.float32)), masks

    def reset(self, *, seed=None, options=None):
        Late.resets += 1
        random.random(), np.random.random()
        if self.fails:
            raise RuntimeError("no simulator")
        return self.observe("ac")

    def step(self, actions):
        observations, infos = self.observe("abc")
        return observations, dict.fromkeys(actions, 0.0), {"__all__": False}, {"__all__": False}, infos


def test_who_comes_late_has_a_mask_as_all_others():
    assert probe_env(Late, {"masked": "abc"}).info_masks == ("a", "b", "c")
    assert probe_env(Late, {"masked": "a"}).info_masks == ("a",)
    assert probe_env(Late, {"masked": "b"}).info_masks == ()


def test_nobody_notices_the_reset():
    random.seed(1), np.random.seed(1)
    expected = random.Random(1).random(), np.random.RandomState(1).random()
    probe_env(Late, {"masked": "ac", "unlike": "others"})
    assert (random.random(), np.random.random()) == expected


def test_no_reset_where_nothing_can_be_found():
    """But the one that shows whether agents act in turns."""
    Late.resets = 0
    assert probe_env(Late, {"masked": "abc", MASKS_KEY: []}).info_masks == () and Late.resets == 1
    assert probe_env(Late, {"masked": "abc", MASKS_KEY: ["a"]}).observation_spaces["b"].shape == (2,) and Late.resets == 2
    assert probe_env(Late, {"masked": "abc", "fails": True}).info_masks == () and Late.resets == 4


def test_a_mask_of_another_length_is_refused_at_once():
    with pytest.raises(
        EnvError, match=r"Agent 'a': the 'action_mask' in its infos has 4 numbers, and its action space Discrete"
    ):
        game_config(Late, masked="abc", length=4).validate()
    game_config(Late, masked="abc", length=4, **{MASKS_KEY: []}).validate()
    env = resolve_env(Late)({"masked": "abc", "length": 2, MASKS_KEY: ["a"]})
    with pytest.raises(EnvFailure, match=r"The 'action_mask' in the infos of agent 'a' has 2 numbers\. Its action space has 3"):
        env.reset()


def test_masks_that_come_later_are_named():
    env = resolve_env(Late)({"masked": "ab", MASKS_KEY: ["a"]})
    env.reset()
    with pytest.raises(EnvFailure, match=r"Agent 'b' has an 'action_mask' in its infos, and had none .*\['a', 'b'\]"):
        env.step(dict.fromkeys("ac", 0))


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        ("a", r"=\'a\' is not a list\. Give the agents"),
        (["z"], r"has 'z', which is no agent of the env\. It has \['a', 'b', 'c', 'd'\]"),
        (["c"], r"has 'c', whose action space Box.* is not Discrete or MultiDiscrete"),
        (["d"], "has 'd', which observes an 'action_mask' already"),
    ],
)
def test_wrong_agents_are_refused(masks, says):
    with pytest.raises(EnvError, match=rf'env_config\["action_masks"\]{"" if says.startswith("=") else " "}{says}'):
        game_config(where="observation", **{MASKS_KEY: masks}).validate()


@pytest.mark.parametrize("where", ["tuple", "infos"])
def test_who_compares_seeds_takes_nothing_masked(where):
    """The game raises an error else; its episodes differ by their seeds."""
    made = []

    def make():
        made.append(resolve_env(MaskedGame)({"where": where, **({MASKS_KEY: MASKED} if where == "infos" else {})}))
        return made[-1]

    assert plays_alike(make) is False
    games = [env.unwrapped_env for env in made]
    assert len(games) == 2 and all(len(game.done) >= 12 for game in games)


@pytest.mark.parametrize(
    ("space", "mask", "expected"),
    [
        (gym.spaces.Discrete(3, start=5), [1, 0, 1], [5, 7, 5]),
        (gym.spaces.MultiDiscrete([2, 3]), ([0, 1], [1, 0, 1]), [[1, 0], [1, 2], [1, 0]]),
        (gym.spaces.MultiDiscrete([[2], [3]]), [0, 0, 0, 1, 1], [[[0], [1]], [[1], [2]], [[0], [1]]]),
    ],
)
def test_allowed_actions_by_hand(space, mask, expected):
    for number, action in enumerate(expected):
        found = allowed_action(space, mask, number)
        assert space.contains(found) and np.array_equal(found, action)


def test_gymnasiums_taxi():
    """A game of one agent whose infos have masks."""
    spaces = probe_env("Taxi-v3", {})
    assert spaces.info_masks == ("agent_0",)
    assert spaces.observation_spaces["agent_0"]["action_mask"].shape == (6,)
