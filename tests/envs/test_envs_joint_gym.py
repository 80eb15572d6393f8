"""Gymnasium environments whose spaces have an entry for each agent."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Tuple
from runners import make_runner

from rllib_maddpg.envs import JointGymGame, SingleAgentGame, probe_env, resolve_env
from rllib_maddpg.envs.errors import EnvFailure

SEES = Box(-10.0, 10.0, (2,))


class Foraging(gym.Env):
    """Three players in Tuples, in the style of lbforaging: a list of rewards, one flag for all, a time limit of 4."""

    observation_space, action_space = Tuple([SEES] * 3), Tuple([Discrete(2), Discrete(3), Discrete(4)])

    def __init__(self, style="list"):
        self.style = style

    def _see(self):
        return tuple(np.array([i, self.time], np.float32) for i in range(3))

    def reset(self, *, seed=None, options=None):
        self.time, self.seen = 0, []
        return self._see(), {}

    def step(self, action):
        assert isinstance(action, tuple) and self.action_space.contains(action), action
        self.time += 1
        self.seen.append(action)
        each = [1.0 * self.time, 10.0, -1.0]
        reward = sum(each) if self.style in ("shared", "infos") else each
        info = {"agents_rewards": tuple(each), "speed": 3.0} if self.style == "infos" else {}
        over = self.time >= 4
        if self.style == "flags":  # the second player is out after two steps
            each[1] *= self.time <= 2
            return self._see(), reward, [over, self.time >= 2, over], np.zeros(3, bool), info
        return self._see(), reward, False, over, info


class Swarm(gym.Env):
    """Two drones in Dicts."""

    observation_space, action_space = Dict(left=SEES, right=SEES), Dict(left=Box(-1, 1, (1,)), right=Box(-1, 1, (1,)))

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return {name: np.zeros(2, np.float32) for name in ("left", "right")}, {}

    def step(self, action):
        assert list(action) == ["left", "right"]
        self.time += 1
        return self.reset()[0], {"left": 1.0, "right": 2.0}, {"left": True, "right": False}, {"left": False, "right": True}, {}


def test_tuples_and_dicts_become_agents():
    spaces = probe_env(Foraging)
    assert spaces.agents == ("agent_0", "agent_1", "agent_2")
    assert spaces.action_spaces == {"agent_0": Discrete(2), "agent_1": Discrete(3), "agent_2": Discrete(4)}
    assert probe_env(Swarm).agents == ("left", "right")
    assert isinstance(resolve_env(Foraging)(), JointGymGame)
    assert isinstance(resolve_env("Pendulum-v1")(), SingleAgentGame)


@pytest.mark.parametrize(
    ("style", "rewards_from", "wanted"),
    [
        ("list", None, [1.0, 10.0, -1.0]),
        ("list", "list", [1.0, 10.0, -1.0]),
        ("shared", "shared", [10.0] * 3),
        ("infos", "infos:agents_rewards", [1.0, 10.0, -1.0]),
        ("infos", "shared", [10.0] * 3),
    ],
)
def test_whose_rewards(style, rewards_from, wanted):
    config = {"style": style} | ({} if rewards_from is None else {"rewards_from": rewards_from})
    env = resolve_env(Foraging)(config)
    observations, infos = env.reset(seed=1)
    assert [list(obs) for obs in observations.values()] == [[0, 0], [1, 0], [2, 0]] and list(infos) == env.agents
    result = env.step({"agent_2": 3, "agent_0": 1, "agent_1": 2})
    assert env.unwrapped_env.seen == [(1, 2, 3)]
    assert result[1] == dict(zip(env.possible_agents, wanted, strict=True))
    assert result[2:4] == ({"agent_0": False, "agent_1": False, "agent_2": False, "__all__": False},) * 2


def test_one_number_without_a_word_is_refused():
    env = resolve_env(Foraging)({"style": "infos"})
    env.reset()
    with pytest.raises(EnvFailure, match=r"The reward 10.0 does not say which of \['agent_0', .* gets what") as info:
        env.step(dict.fromkeys(env.agents, 0))
    assert not info.value.can_pass
    assert '"rewards_from"' in info.value.fix and "lists of that length under ['agents_rewards']" in info.value.fix
    env = resolve_env(Foraging)({"style": "infos", "rewards_from": "infos:rewards"})
    env.reset()
    with pytest.raises(EnvFailure, match="no 'rewards'") as info:
        env.step(dict.fromkeys(env.agents, 0))
    assert "The keys are ['agents_rewards', 'speed']" in info.value.fix


@pytest.mark.parametrize("value", ["team", "infos:", 3])
def test_the_key_is_checked(value):
    with pytest.raises(ValueError, match=rf'env_config\["rewards_from"\]={value!r} is not known'):
        resolve_env(Foraging)({"rewards_from": value})


def test_the_key_is_refused_elsewhere():
    with pytest.raises(ValueError, match="'Pendulum-v1' is not a Gymnasium env with one entry per agent"):
        resolve_env("Pendulum-v1")({"rewards_from": "shared"})


def test_ends_of_single_agents():
    env = resolve_env(Foraging)({"style": "flags"})
    env.reset()
    env.step({"agent_0": 0, "agent_1": 2, "agent_2": 1})
    second = env.step({"agent_0": 0, "agent_1": 1, "agent_2": 1})
    assert second[2] == {"agent_0": False, "agent_1": True, "agent_2": False, "__all__": False}
    assert env.agents == ["agent_0", "agent_2"]
    third = env.step({"agent_0": 1, "agent_2": 3})
    assert [list(part) for part in third[:2]] == [["agent_0", "agent_2"]] * 2
    assert env.unwrapped_env.seen[-1] == (1, 1, 3)  # the last action of the one that is out
    fourth = env.step({"agent_0": 1, "agent_2": 3})
    assert fourth[2] == {"agent_0": True, "agent_2": True, "__all__": True} and env.agents == []
    swarm = resolve_env(Swarm)()
    swarm.reset()
    *_, terminateds, truncateds, _ = swarm.step({"right": [0.0], "left": [0.0]})
    assert terminateds == {"left": True, "right": False, "__all__": True}
    assert truncateds == {"left": False, "right": True, "__all__": False}


@pytest.mark.parametrize("fast", [True, False])
def test_rows_of_such_a_game(fast):
    columns = make_runner(Foraging, {"style": "flags"}, fast=fast).sample(num_timesteps=20)[0].columns
    np.testing.assert_array_equal(columns["rewards"][:4], [[1, 10, -1], [2, 10, -1], [3, 0, -1], [4, 0, -1]])
    np.testing.assert_array_equal(columns["alive"][:4, 1], [1, 1, 0, 0])
    np.testing.assert_array_equal(columns["terminateds"][:4], [[0, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]])


def test_a_shared_reward_is_for_those_that_still_play():
    class Team(Foraging):
        def step(self, action):
            observations, rewards, *rest, _ = super().step(action)
            return observations, sum(rewards), *rest, None

    rollout = make_runner(Team, {"style": "flags", "rewards_from": "shared"}).sample(num_timesteps=4)[0]
    assert rollout.error == ""
    # time + 10 - 1, without the 10 of the second player after its end.
    np.testing.assert_array_equal(rollout.columns["rewards"], [[10, 10, 10], [11, 11, 11], [2, 0, 2], [3, 0, 3]])
    env = resolve_env(Team)({"style": "list", "rewards_from": "infos:each"})
    env.reset()
    with pytest.raises(EnvFailure, match="The info has no 'each'"):
        env.step(dict.fromkeys(env.agents, 0))


def test_one_agent_gets_the_only_number():
    class Alone(gym.Env):
        observation_space, action_space = Tuple([SEES]), Tuple([Discrete(2)])

        def reset(self, *, seed=None, options=None):
            return (np.zeros(2, np.float32),), None

        def step(self, action):
            return *self.reset()[:1], 3.0, False, False, {}

    env = resolve_env(Alone)()
    env.reset()
    assert env.step({"agent_0": 1})[1] == {"agent_0": 3.0}


def test_a_value_for_each_agent_is_missing():
    class Short(Foraging):
        def _see(self):
            return super()._see()[:2]

    with pytest.raises(EnvFailure, match="The env gave observations") as info:
        resolve_env(Short)().reset()
    assert "an entry for each of ['agent_0', 'agent_1', 'agent_2']" in info.value.fix


def test_dicts_with_all_flags_are_a_multi_agent_env():
    class Wrong(Swarm):
        def step(self, action):
            observations, rewards, *_ = super().step(action)
            return observations, rewards, {"__all__": False}, {"__all__": False}, {}

    env = resolve_env(Wrong)()
    env.reset()
    with pytest.raises(EnvFailure, match="`step` returned a dict as terminated") as info:
        env.step({"left": [0.0], "right": [0.0]})
    assert "is an RLlib MultiAgentEnv" in info.value.fix
