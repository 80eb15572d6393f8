"""The adapters: agent order, `__all__`, who is alive, and that nothing else of the env changes."""

import gymnasium as gym
import numpy as np
import pytest
from mpe2 import simple_spread_v3
from ray.rllib.env.multi_agent_env_runner import check_multiagent_environments
from scripted_env import Scripted

from rllib_maddpg.envs import ParallelPettingZoo, SingleAgentGame, resolve_env


def play(env, steps):
    """Returns (terminateds, truncateds) of each step."""
    env.reset()
    flags = []
    for _ in range(steps):
        _, _, terminateds, truncateds, _ = env.step(dict.fromkeys(env.agents, 0))
        flags.append((terminateds, truncateds))
    return flags


def test_all_is_terminated_if_one_terminates_while_the_rest_truncates():
    """RLlib marks all that end in this step with the flag of `__all__`: b must not become truncated, while a and c are both."""
    env = ParallelPettingZoo(Scripted({"a": (2, "truncated"), "b": (2, "terminated"), "c": (2, "truncated")}))
    first, last = play(env, 2)
    assert first == (
        {"a": False, "b": False, "c": False, "__all__": False},
        {"a": False, "b": False, "c": False, "__all__": False},
    )
    assert last == (
        {"a": False, "b": True, "c": False, "__all__": True},
        {"a": True, "b": False, "c": True, "__all__": False},
    )
    assert env.agents == []


@pytest.mark.parametrize("clears_agents", [True, False])
def test_all_tells_how_the_last_agents_ended(clears_agents):
    env = ParallelPettingZoo(Scripted({"a": (1, "terminated"), "b": (3, "terminated")}, clears_agents))
    flags = play(env, 3)
    assert flags[0][0] == {"a": True, "b": False, "__all__": False}
    assert flags[1] == ({"b": False, "__all__": False}, {"b": False, "__all__": False})
    assert flags[2] == ({"b": True, "__all__": True}, {"b": False, "__all__": False})

    env = ParallelPettingZoo(Scripted({"a": (1, "truncated"), "b": (3, "terminated")}, clears_agents))
    assert play(env, 3)[2] == ({"b": True, "__all__": True}, {"b": False, "__all__": False})
    env = ParallelPettingZoo(Scripted({"a": (1, "terminated"), "b": (3, "truncated")}, clears_agents))
    assert play(env, 3)[2] == ({"b": False, "__all__": False}, {"b": True, "__all__": True})


def test_a_new_episode_forgets_the_old_one():
    env = ParallelPettingZoo(Scripted({"a": (1, "truncated")}))
    assert play(env, 1)[0][1]["__all__"] is True
    env.env.script = {"a": (1, "terminated")}
    assert play(env, 1)[0] == ({"a": True, "__all__": True}, {"a": False, "__all__": False})


def test_dead_agents_get_no_action_and_give_no_results():
    inner = Scripted({"a": (1, "terminated"), "b": (3, "truncated")}, clears_agents=False)
    env = ParallelPettingZoo(inner)
    env.reset()
    env.step({"a": 1, "b": 2})
    assert env.agents == ["b"]
    results = env.step({"a": 1, "b": 2})
    assert inner.actions == {"b": 2}
    assert [sorted(result) for result in results] == [["b"], ["b"], ["__all__", "b"], ["__all__", "b"], ["b"]]
    assert results[1] == {"b": 2.0}
    assert results[4] == {"b": {"time": 2}}


def test_agents_that_join_or_leave_without_a_flag():
    class Changing(Scripted):
        """Agents in the game after each step, whatever their flags say."""

        rosters = [["c", "a"], ["c", "a"], ["a", "b"], ["a", "b"], []]

        def reset(self, seed=None, options=None):
            super().reset()
            self.agents = self.rosters[0]
            return {a: np.zeros(2) for a in self.agents}, {}

        def step(self, actions):
            result = super().step(actions)
            self.agents = self.rosters[self.time]
            for agent in self.agents:
                result[0][agent] = np.full(2, self.time)
            return result

    env = ParallelPettingZoo(Changing(dict.fromkeys("abc", (9, "truncated"))))
    assert list(env.reset()[0]) == env.agents == ["a", "c"]
    nobody = {"a": False, "c": False, "__all__": False}
    assert env.step({"a": 0, "c": 0})[2:4] == (nobody, nobody)
    observations, _, *flags, _ = env.step({"a": 0, "c": 0})
    assert list(observations) == ["a", "b", "c"]
    assert flags == [nobody | {"b": False}] * 2
    assert env.agents == ["a", "b"]
    observations, _, *flags, _ = env.step({"a": 0, "b": 0, "c": 0})
    assert sorted(env.env.actions) == list(observations) == ["a", "b"]
    assert flags == [{"a": False, "b": False, "__all__": False}] * 2
    *_, terminateds, truncateds, _ = env.step({"a": 0, "b": 0})
    assert terminateds == {"a": False, "b": False, "__all__": False}
    assert truncateds == {"a": True, "b": True, "__all__": True}
    assert env.agents == []


def test_agents_are_sorted_everywhere_and_the_dicts_of_the_env_stay_as_they_are():
    inner = Scripted({"wolf_10": (2, "truncated"), "ape": (2, "truncated"), "wolf_2": (2, "truncated")})
    env = ParallelPettingZoo(inner)
    order = ["ape", "wolf_10", "wolf_2"]
    assert env.possible_agents == order
    assert env.agents == order
    assert list(env.observation_spaces) == list(env.action_spaces) == order
    assert list(env.observation_space.spaces) == list(env.action_space.spaces) == order
    assert env.get_observation_space("ape") == gym.spaces.Box(-1.0, 1.0, (2,), np.float64)
    assert env.get_action_space("wolf_2") == gym.spaces.Discrete(3)

    observations, infos = env.reset(seed=7, options={"x": 1})
    assert inner.seed_and_options == (7, {"x": 1})
    assert list(observations) == list(infos) == order
    results = env.step(dict.fromkeys(order, 0))
    assert [list(result) for result in results] == [order, order, [*order, "__all__"], [*order, "__all__"], order]
    assert all(list(given) == inner.possible_agents for given in inner.returned)
    assert results[0]["ape"] is inner.returned[0]["ape"]


def test_wants_possible_agents():
    inner = Scripted({})
    with pytest.raises(ValueError, match=r"Scripted has no `possible_agents`.*Set `possible_agents`"):
        ParallelPettingZoo(inner)


def test_mpe2_steps_as_without_the_adapter_and_truncates_at_25():
    kwargs = {"continuous_actions": True, "N": 2}
    plain = simple_spread_v3.parallel_env(**kwargs)
    adapted = resolve_env("simple_spread")(kwargs)
    seen, _ = plain.reset(seed=3)
    observations, _ = adapted.reset(seed=3)
    rng = np.random.default_rng(0)
    for step in range(25):
        for agent in adapted.possible_agents:
            np.testing.assert_array_equal(observations[agent], seen[agent])
            assert observations[agent].dtype == np.float32
        actions = {agent: rng.random(5, np.float32) for agent in adapted.agents}
        seen, expected, _, _, _ = plain.step(actions)
        observations, rewards, terminateds, truncateds, _ = adapted.step(actions)
        assert rewards == dict(expected)
        assert truncateds["__all__"] is (step == 24)
        assert terminateds["__all__"] is False
    assert adapted.agents == []


def test_render_and_metadata():
    env = resolve_env("simple_spread")({"render_mode": "rgb_array"})
    assert env.render_mode == "rgb_array"
    env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (700, 700, 3)
    assert frame.dtype == np.uint8
    env.metadata["autoreset_mode"] = "next_step"
    assert "autoreset_mode" not in env.env.metadata
    assert type(env.unwrapped_env).__module__ == "mpe2.simple_spread.simple_spread"
    assert env.unwrapped is env
    env.close()


def test_pendulum_as_a_game_of_one_agent():
    plain = gym.make("Pendulum-v1")
    game = resolve_env("Pendulum-v1")({})
    assert isinstance(game, SingleAgentGame)
    assert game.possible_agents == ["agent_0"]
    assert game.observation_spaces == {"agent_0": plain.observation_space}
    seen, _ = plain.reset(seed=11)
    observations, _ = game.reset(seed=11)
    np.testing.assert_array_equal(observations["agent_0"], seen)
    rng = np.random.default_rng(0)
    for step in range(200):
        action = rng.uniform(-2, 2, 1).astype(np.float32)
        seen, reward, _, _, _ = plain.step(action)
        observations, rewards, terminateds, truncateds, _ = game.step({"agent_0": action})
        np.testing.assert_array_equal(observations["agent_0"], seen)
        assert rewards == {"agent_0": reward}
        assert terminateds == {"agent_0": False, "__all__": False}
        assert truncateds == {"agent_0": step == 199, "__all__": step == 199}
    assert game.agents == []


class TerminatesAtItsLimit(gym.Env):
    observation_space = gym.spaces.Box(0, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, True, True, {}


def test_a_game_of_one_agent_ends_in_one_way_only():
    game = SingleAgentGame(TerminatesAtItsLimit())
    game.reset()
    _, _, terminateds, truncateds, _ = game.step({"agent_0": 1})
    assert terminateds == {"agent_0": True, "__all__": True}
    assert truncateds == {"agent_0": True, "__all__": False}


@pytest.mark.parametrize("name", ["simple_speaker_listener", "Pendulum-v1"])
def test_passes_rllibs_own_check(name):
    check_multiagent_environments(resolve_env(name)({}))
