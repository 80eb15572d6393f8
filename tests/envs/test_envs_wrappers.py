"""SuperSuit wrappers by name."""

import gymnasium as gym
import numpy as np
import pytest
from scripted_env import Scripted

from rllib_maddpg.envs import resolve_env
from rllib_maddpg.envs.black_death import BlackDeath
from rllib_maddpg.envs.parallel import ParallelPettingZoo

STACK = ["frame_stack_v2", {"stack_size": 4}]


def test_frame_stack_and_black_death_on_simple_spread():
    config = {"wrappers": [STACK, "black_death_v3"], "max_cycles": 3, "N": 2}
    env = resolve_env("simple_spread")(config)
    assert config["wrappers"] == [STACK, "black_death_v3"]
    # simple_spread with N=2 observes 4 + 2*2 (landmarks) + 2 (other) + 2 (its message) = 12 numbers.
    assert env.get_observation_space("agent_0").shape == (48,)
    first, _ = env.reset(seed=5)
    plain, _ = resolve_env("simple_spread")({"N": 2}).reset(seed=5)
    assert list(first) == ["agent_0", "agent_1"]
    for agent, observation in first.items():
        assert observation.shape == (48,)
        np.testing.assert_array_equal(observation, np.tile(plain[agent], 4))
    for step in range(3):
        observations, _, terminateds, truncateds, _ = env.step({"agent_0": 1, "agent_1": 2})
        assert truncateds == {"agent_0": step == 2, "agent_1": step == 2, "__all__": step == 2}
        assert terminateds == {"agent_0": False, "agent_1": False, "__all__": False}
    # The newest quarter of the last observation is the last frame of the world, not black.
    np.testing.assert_array_equal(observations["agent_0"][36:], env.unwrapped_env.observe("agent_0"))
    assert env.agents == []


@pytest.mark.parametrize("clears_agents", [True, False])
def test_black_death_keeps_the_dead_in_the_game(clears_agents):
    inner = Scripted({"a": (1, "terminated"), "b": (3, "truncated")}, clears_agents)
    env = ParallelPettingZoo(BlackDeath(inner))
    env.reset()
    rows = [env.step({"a": 1, "b": 1}) for _ in range(3)]
    assert [list(row[0]) for row in rows] == [["a", "b"]] * 3
    assert inner.actions == {"b": 1}
    np.testing.assert_array_equal(rows[0][0]["a"], [1, 1])  # the last one it saw
    np.testing.assert_array_equal(rows[2][0]["a"], [0, 0])
    np.testing.assert_array_equal(rows[2][0]["b"], [3, 3])
    assert [row[1]["a"] for row in rows] == [1.0, 0.0, 0.0]
    assert rows[1][2:4] == ({"a": False, "b": False, "__all__": False},) * 2
    assert rows[2][2:4] == ({"a": True, "b": False, "__all__": True}, {"a": False, "b": True, "__all__": False})
    env.reset()
    assert env.agents == ["a", "b"]


def test_wrappers_on_gymnasium_and_aec_envs():
    env = resolve_env("Pendulum-v1")({"wrappers": [STACK]})
    assert env.get_observation_space("agent_0").shape == (12,)
    observations, _ = env.reset(seed=0)
    assert observations["agent_0"].shape == (12,)

    from mpe2 import simple_spread_v3

    env = resolve_env(lambda config: simple_spread_v3.env())({"wrappers": [STACK]})
    assert env.get_observation_space("agent_0").shape == (72,)


def error_of(wrappers, env="simple_spread"):
    with pytest.raises(ValueError) as info:
        resolve_env(env)({"wrappers": wrappers})
    text = str(info.value)
    assert text.startswith('env_config["wrappers"]')
    return text


def test_unknown_wrappers_list_near_misses():
    text = error_of(["frame_stak_v2"])
    assert "SuperSuit has no wrapper 'frame_stak_v2'. Did you mean 'frame_stack_v2'" in text
    assert "'black_death_v3'" in error_of(["black_death_v2"])
    assert "no wrapper 'concat_vec_envs_v1'" in error_of(["concat_vec_envs_v1"])


def test_bad_keywords_show_the_signature():
    text = error_of([["frame_stack_v2", {"size": 4}]])
    assert "frame_stack_v2 with {'size': 4} cannot wrap" in text
    assert "(env, stack_size=4, stack_dim=-1)" in text
    assert "stack size of frame_stack must be an int" in error_of([["frame_stack_v2", {"stack_size": "4"}]])


def test_malformed_lists_show_an_example():
    assert "is not a list. Give a list such as" in error_of("frame_stack_v2")
    assert "is neither a name nor [name, {keywords}]. Write for example" in error_of([["frame_stack_v2", 4]])
    assert "is neither a name nor [name, {keywords}]" in error_of([[]])
    assert "is neither a name nor [name, {keywords}]" in error_of([7])


def test_wrappers_that_do_not_fit_the_env():
    class Discrete(Scripted):
        def observation_space(self, agent):
            return gym.spaces.Discrete(2)

    text = error_of(["black_death_v3"], lambda config: Discrete({"a": (1, "truncated")}))
    assert "black_death_v3 needs Box observations, but agent 'a' has Discrete(2)" in text
    assert "black_death_v3" in error_of(["black_death_v3"], "Pendulum-v1")
    text = error_of([STACK], lambda config: ParallelPettingZoo(Scripted({"a": (1, "truncated")})))
    assert "is an RLlib MultiAgentEnv, which SuperSuit cannot wrap. Take the key out" in text
