"""Environments that break the rules: both loops refuse the same, in the same words, and at once."""

import gymnasium as gym
import numpy as np
import pytest
from pettingzoo import ParallelEnv
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from runners import make_runner

from rllib_maddpg.envs.api import check_gym_reset, check_gym_step, check_reset_result, check_step_result
from rllib_maddpg.envs.errors import EnvFailure
from rllib_maddpg.envs.step_checks import fitting
from rllib_maddpg.rows.observations import Part

SEES, ACTS = gym.spaces.Box(-9.0, 9.0, (2,)), gym.spaces.Box(-1.0, 1.0, (1,))
GOES_ON = {"__all__": False}


class Pair(MultiAgentEnv):
    """Agents a and b, episodes of 6 steps, rewards 1 and 2."""

    def __init__(self, config=None):
        super().__init__()
        self.possible_agents = self.agents = ["a", "b"]
        self.observation_spaces, self.action_spaces = dict.fromkeys("ab", SEES), dict.fromkeys("ab", ACTS)

    def see(self, agents="ab"):
        return {agent: np.full(2, self.time, np.float32) for agent in agents}

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return self.see(), {}

    def step(self, actions):
        self.time += 1
        return self.change([self.see(), {"a": 1.0, "b": 2.0}, {**GOES_ON}, {"__all__": self.time >= 6}, {}])

    def change(self, result):
        return tuple(result)


class Zoo(ParallelEnv):
    """The same as a PettingZoo game, which asks for the action of each agent of its list; b ends at step 2."""

    possible_agents = ["a", "b"]

    def observation_space(self, agent):
        return SEES

    def action_space(self, agent):
        return ACTS

    def reset(self, seed=None, options=None):
        self.time, self.agents = 0, ["a", "b"]
        return self.see(self.agents), {}

    def see(self, agents):
        return {agent: np.full(2, self.time, np.float32) for agent in agents}

    def step(self, actions):
        assert sorted(actions) == sorted(self.agents)
        self.time += 1
        now = self.agents
        ends, over = {agent: agent == "b" and self.time == 2 for agent in now}, dict.fromkeys(now, self.time >= 6)
        self.agents = [agent for agent in now if not (ends[agent] or over[agent])]
        return self.change([self.see(now), dict.fromkeys(now, 1.0), ends, over, {}])

    def change(self, result):
        return tuple(result)


class Mover(Pair):
    """Turns, which begin too late to be found out beforehand: only who moves next observes."""

    def reset(self, *, seed=None, options=None):
        super().reset()
        return self.see("a"), {}

    def change(self, result):
        mover = "a" if self.time < 25 else "b"
        return self.see(mover), {mover: 1.0}, {**GOES_ON}, {**GOES_ON}, {}


class Returning(Zoo):
    def change(self, result):
        if self.time == 4:
            self.agents = ["a", "b"]
            result[0]["b"] = result[0]["a"]
        return result


class NewFace(Zoo):
    def change(self, result):
        if self.time == 3:
            self.agents = ["a", "c"]
            result[0]["c"] = result[0]["a"]
        return result


class EarlyReward(Zoo):
    """Pays an agent that joins only later; b is never there."""

    def reset(self, seed=None, options=None):
        super().reset()
        self.agents = ["a"]
        return self.see("a"), {}

    def change(self, result):
        if self.time == 2:
            result[1]["b"] = 10.0
        return result


class Spectator(Zoo):
    def change(self, result):
        if self.time == 4:
            result[1]["d"] = 5.0
        return result


class LateReward(Zoo):
    def change(self, result):
        if self.time == 5:
            result[1]["b"] = 10.0
        return result


def b_dies(env, result):
    result[2] = {"a": False, "b": env.time == 2, "__all__": False}
    if env.time > 2:
        result[0].pop("b")
        result[1]["b"] = 0.0


def late_reward(env, result):
    b_dies(env, result)
    result[1]["b"] = 10.0 * (env.time == 5)


def second_life(env, result):
    b_dies(env, result)
    if env.time == 4:
        result[0] = env.see()


def with_change(change):
    """`Pair`, whose result `change` has changed."""

    def method(self, result):
        change(self, result)
        return result

    return type(change.__name__, (Pair,), {"change": method})


def put(part, value):
    def change(env, result):
        result[part] = value

    return with_change(change)


def put_in(part, agent, value):
    def change(env, result):
        result[part][agent] = value

    return with_change(change)


def drop(part, agent):
    return with_change(lambda env, result: result[part].pop(agent))


# what is said of the env, the env
FAULTS = {
    "Agent 'a' acted but was not observed, while agent 'b' was observed without having acted, at step 25": Mover,
    "Agent 'b' is observed after its end at step 4": Returning,
    "Agent 'b' is observed after its end at step 4 of": with_change(second_life),
    "Agent 'b' gets the reward 10.0 after its end at step 5": LateReward,
    "Agent 'b' gets the reward 10.0 after its end at step 5 of": with_change(late_reward),
    "Agent 'b' gets the reward 10.0 at a step at which it does not act at step 2": EarlyReward,
    "Agent 'd' is not one of ['a', 'b'] at step 4": Spectator,
    "Agent 'c' is not one of ['a', 'b'] at step 3": NewFace,
    "Agent 'c' is not one of ['a', 'b'] at step 1": put_in(0, "c", np.zeros(2)),
    "Agent 'd' is not one of ['a', 'b'] at step 1": put_in(1, "d", 5.0),
    "Agent 'a': observation has shape (3,), not (2,) at step 1": put_in(0, "a", np.zeros(3)),
    "Agent 'b': observation is {'x': 1}, not an array of numbers at step 1": put_in(0, "b", {"x": 1}),
    "Agent 'b': observation is None, not an array of numbers at step 1": put_in(0, "b", None),
    "`step` returned 4 values and not 5 at step 1": with_change(lambda env, result: result.pop()),
    "`step` returned True as truncateds at step 1": put(3, True),
    "`step` returned 1.5 as rewards at step 1": put(1, 1.5),
    "`step` returned a ndarray as observations at step 1": put(0, np.zeros(2)),
}
# Those that may pass are called so.
MAY_PASS = {
    "The reward of agent 'a' is 'missing' at step 1": drop(1, "a"),
    "The reward of agent 'a' is 'high' at step 1": put_in(1, "a", "high"),
    "Agent 'b' has no observation, though it is in the game, at step 1": drop(0, "b"),
}


def restart(config):
    config.fault_tolerance(restart_failed_sub_environments=True)


@pytest.mark.parametrize("said", FAULTS)
def test_both_loops_refuse_at_once_what_cannot_pass(said):
    errors = []
    for fast in (True, False):
        runner = make_runner(FAULTS[said], fast=fast, change=restart)
        rollout = runner.sample(num_timesteps=30)[0]
        assert (runner._sampler is not None) == fast
        errors.append(rollout.error)
    assert errors[0] == errors[1]
    assert errors[0].startswith(said) and "of the episode in env 0 of env runner 0. " in errors[0]
    assert "rebuilt" not in errors[0] and "restart" not in errors[0] and "in a row" not in errors[0]


@pytest.mark.parametrize("said", MAY_PASS)
def test_both_loops_say_which_faults_may_pass(said):
    errors = [make_runner(MAY_PASS[said], fast=fast).sample(num_timesteps=30)[0].error for fast in (True, False)]
    assert errors[0] == errors[1] and errors[0].startswith(said)
    assert errors[0].endswith("If the fault may pass, set `restart_failed_sub_environments` in `.fault_tolerance()`.")


def test_the_way_out_is_said():
    assert "This is a turn-based game. Set `turn_based=True` in `.env_runners()`." in error_of(Mover)
    for env in (Returning, with_change(second_life)):
        assert "Give each life an id of its own" in error_of(env) and '"black_death_v3"' in error_of(env)
    assert "pay it at the agent's last step" in error_of(LateReward)


def error_of(env, fast=True):
    return make_runner(env, fast=fast).sample(num_timesteps=30)[0].error


def test_rewards_of_nothing_after_the_end_are_no_fault():
    """Nor is what RLlib's loop refuses beside them: infos, and observations in the step that ends the episode."""

    def harmless(env, result):
        b_dies(env, result)
        result[4] = {"b": {"x": 1}}
        if env.time == 6:
            result[0] = env.see()

    rows = []
    for fast in (True, False):
        rollout = make_runner(with_change(harmless), fast=fast).sample(num_timesteps=12)[0]
        assert rollout.error == ""
        rows.append(rollout.columns)
    np.testing.assert_array_equal(rows[0]["rewards"][:6, :2], [[1, 2], [1, 2], [1, 0], [1, 0], [1, 0], [1, 0]])
    np.testing.assert_array_equal(rows[0]["rewards"], rows[1]["rewards"])
    np.testing.assert_array_equal(rows[0]["alive"], rows[1]["alive"])


class KeepsDicts(Pair):
    """One dict of each kind for all steps; b dies, and its entries stay as they are."""

    def __init__(self, config=None):
        super().__init__(config)
        self.kept = [{"a": 0, "b": 0} for _ in range(5)]

    def change(self, result):
        seen, rewards, terminateds, truncateds, infos = self.kept
        assert all(part.keys() >= {"a", "b"} for part in self.kept)
        for agent in "ab":
            seen[agent] = [self.time, self.time]
            rewards[agent] += int(agent == "a" or self.time <= 2)
            infos[agent] = {}
        assert type(rewards["a"]) is int
        rewards["b"] *= self.time <= 2
        terminateds["b"], truncateds["__all__"] = self.time >= 2, self.time >= 6
        return tuple(self.kept)


def test_an_env_may_keep_its_dicts():
    rows = []
    for fast in (True, False):
        rollout = make_runner(KeepsDicts, fast=fast).sample(num_timesteps=6)[0]
        assert rollout.error == ""
        rows.append(rollout.columns)
        np.testing.assert_array_equal(rows[-1]["rewards"][:, 1], [1, 2, 0, 0, 0, 0])
        np.testing.assert_array_equal(rows[-1]["rewards"][:, 0], [1, 2, 3, 4, 5, 6])
        np.testing.assert_array_equal(rows[-1]["new_obs"][:, 0], [1, 2, 3, 4, 5, 6])


class KeepsTheDead(Zoo):
    """b stays in the list after its end, which is flagged once."""

    def step(self, actions):
        self.time += 1
        ends, over = {"a": False, "b": self.time == 2}, dict.fromkeys("ab", self.time >= 6)
        return self.see("ab"), {"a": 1.0, "b": float(self.time <= 2)}, ends, over, {}


def test_black_death_remembers_a_death_that_is_flagged_once():
    columns = make_runner(KeepsTheDead, {"wrappers": ["black_death_v3"]}).sample(num_timesteps=6)[0].columns
    np.testing.assert_array_equal(columns["new_obs"][:, 2], [1, 2, 0, 0, 0, 0])
    np.testing.assert_array_equal(columns["terminateds"][:, 1], [0, 0, 0, 0, 0, 1])


@pytest.mark.parametrize("env", [Returning, LateReward])
def test_black_death_is_a_way_out(env):
    rollout = make_runner(env, {"wrappers": ["black_death_v3"]}).sample(num_timesteps=6)[0]
    assert rollout.error == ""
    columns = rollout.columns
    assert columns["alive"].all() and not columns["terminateds"][:-1].any()
    if env is Returning:
        # It is seen again from the step at which it is back, and acts after that.
        np.testing.assert_array_equal(columns["new_obs"][:, 2], [1, 2, 0, 4, 5, 6])
        np.testing.assert_array_equal(columns["rewards"][:, 1], [1, 1, 0, 0, 1, 1])
    else:
        np.testing.assert_array_equal(columns["rewards"][:, 1], [1, 1, 0, 0, 10, 0])


# ------------------------------------------------------------------------------------------ resets


@pytest.mark.parametrize("base", [Pair, Zoo])
@pytest.mark.parametrize("fast", [True, False])
def test_a_reset_without_infos(base, fast):
    class Old(base):
        def reset(self, **kwargs):
            return super().reset()[0]

    error = error_of(Old, fast)
    assert error.startswith("`reset` returned a dict and not (observations, infos) at step 0 of the episode in env 0")
    assert "must return two dicts by agent" in error


def test_what_gymnasium_envs_return():
    class Old(gym.Env):
        observation_space, action_space = SEES, ACTS

        def reset(self, **kwargs):
            return np.zeros(2, np.float32), {}

        def step(self, action):
            return np.zeros(2, np.float32), 1.0, False, {}

    class ByAgent(Old):
        def step(self, action):
            return np.zeros(2, np.float32), 1.0, {"a": False}, {"a": False}, {}

    class DictAtReset(Old):
        def reset(self, **kwargs):
            return {"a": np.zeros(2)}, {}

    error = error_of(Old)
    assert error.startswith("`step` returned 4 values and not 5 at step 1") and "Gym's old `done` is now two flags" in error
    for env in (ByAgent, DictAtReset):
        for fast in (True, False):
            assert "is an RLlib MultiAgentEnv: derive its class from" in error_of(env, fast)


@pytest.mark.parametrize(
    ("check", "result", "said"),
    [
        (check_reset_result, None, "`reset` returned None and not"),
        (check_reset_result, ({}, []), "`reset` returned a list of 0 as infos"),
        (check_reset_result, (np.zeros(2), {}), "`reset` returned a ndarray as observations"),
        (check_step_result, None, "`step` returned None and not 5 values"),
        (check_step_result, ({}, {}, {}, {}, []), "`step` returned a list of 0 as infos"),
        (check_gym_reset, np.zeros(2), "`reset` returned a ndarray and not"),
        (check_gym_reset, (1, 2), "`reset` returned 2 as info"),
        (check_gym_step, (1, 2, 3, 4), "`step` returned 4 values and not 5"),
    ],
)
def test_the_texts(check, result, said):
    with pytest.raises(EnvFailure) as info:
        check(result)
    assert info.value.what.startswith(said) and "must return" in info.value.fix and not info.value.can_pass


def test_what_is_right_passes():
    check_reset_result(({}, None))
    check_step_result([{}, {}, {}, {}, None])
    check_gym_reset((0, {}))
    check_gym_step((0, 1.0, False, True, {}))


# ------------------------------------------------------------------------------------------ observations


class Lists(Pair):
    """Python lists, ints and float64 for boxes of float32; a scalar for a box of one number."""

    def __init__(self, config=None):
        super().__init__(config)
        self.observation_spaces["b"] = gym.spaces.Box(-9.0, 9.0, (1,))

    def see(self, agents="ab"):
        return {"a": [self.time, [1, 2.5][self.time % 2]], "b": np.float64(self.time)}


@pytest.mark.parametrize("fast", [True, False])
def test_observations_that_mean_the_right_thing_are_converted(fast):
    rollout = make_runner(Lists, fast=fast).sample(num_timesteps=6)[0]
    assert rollout.error == ""
    np.testing.assert_array_equal(rollout.columns["obs"][:6], [[t, 2.5 if t % 2 else 1, t] for t in range(6)])
    np.testing.assert_array_equal(rollout.columns["new_obs"][:6, 2], [1, 2, 3, 4, 5, 6])


class Mixed(Pair):
    """a observes a number in a Box, b one of 7 choices. a's is observed as `env_config` says."""

    def __init__(self, config=None):
        super().__init__(config)
        self.config = config
        self.observation_spaces = {"a": gym.spaces.Box(-9.0, 9.0, config["shape"]), "b": gym.spaces.Discrete(7)}

    def see(self, agents="ab"):
        return {"a": self.config["as"](self.time), "b": self.time}


@pytest.mark.parametrize(("shape", "form"), [((1, 1), float), ((1,), lambda x: np.full((1, 1), x))], ids=["scalar", "square"])
def test_one_number_is_one_number_beside_a_choice(shape, form):
    for fast in (True, False):
        rollout = make_runner(Mixed, {"shape": shape, "as": form}, fast=fast).sample(num_timesteps=6)[0]
        assert rollout.error == ""
        np.testing.assert_array_equal(rollout.columns["obs"][:6, 0], range(6))


def test_what_does_not_fit_beside_a_choice_is_said_alike():
    config = {"shape": (1,), "as": lambda x: [x] * (1 + x)}
    errors = [make_runner(Mixed, config, fast=fast).sample(num_timesteps=6)[0].error for fast in (True, False)]
    assert errors[0] == errors[1]
    assert errors[0].startswith("Agent 'a': observation has shape (2,), not (1,) at step 1 of the episode in env 0")


def test_what_the_dead_observe_beside_a_choice_is_not_looked_at():
    class Dead(Mixed):
        def change(self, result):
            result[2]["a"] = self.time >= 2
            if self.time > 2:
                result[0]["a"], result[1]["a"] = None, 0.0
            return tuple(result)

    for fast in (True, False):
        rollout = make_runner(Dead, {"shape": (1,), "as": float}, fast=fast).sample(num_timesteps=6)[0]
        assert rollout.error == ""
        np.testing.assert_array_equal(rollout.columns["alive"][:, 0], [1, 1, 0, 0, 0, 0])


def test_fitting():
    one, two, square = (Part((), "Box", shape) for shape in ((1,), (2,), (2, 2)))
    np.testing.assert_array_equal(fitting((1, 2.5), "a", two), [1.0, 2.5])
    np.testing.assert_array_equal(fitting([(1, 2), (3, 4)], "a", square), [1, 2, 3, 4])
    np.testing.assert_array_equal(fitting(True, "a", one), [1])
    np.testing.assert_array_equal(fitting(np.ones((1, 1)), "a", one), [1])
    seen = np.zeros(2, np.float32)
    assert np.shares_memory(fitting(seen, "a", two), seen)
    for observation in ("abc", [1, [2, 3]], [1, None], np.zeros(2, complex), object(), [[1], [2]], np.zeros((2, 1))):
        with pytest.raises(EnvFailure, match=r"Agent 'a': observation (is .*, not an array of numbers|has shape)"):
            fitting(observation, "a", two)


# ------------------------------------------------------------------------------------------ RLlib's loop


class Crashes(Pair):
    """Raises at step 3 of each of its first `times` episodes."""

    made, crashes = 0, 0

    def __init__(self, config=None):
        super().__init__(config)
        type(self).made += 1

    def change(self, result):
        if self.time == 3 and Crashes.crashes > 0:
            Crashes.crashes -= 1
            raise RuntimeError("the simulator has crashed")
        return result


@pytest.mark.parametrize(("fast", "num_envs"), [(True, 1), (False, 1), (False, 3)])
def test_the_text_of_an_error_reaches_the_user(fast, num_envs):
    Crashes.crashes = 10**9
    runner = make_runner(Crashes, num_envs=num_envs, fast=fast)
    error = runner.sample(num_timesteps=30)[0].error
    assert error.startswith("RuntimeError: the simulator has crashed at step 3 of the episode in env 0 of env runner 0.")
    # The next call begins with new episodes.
    Crashes.crashes = 0
    rollout = runner.sample(num_timesteps=30)[0]
    assert rollout.error == "" and len(rollout) >= 30


def test_rllibs_loop_rebuilds_envs_as_often_as_the_settings_allow():
    def change(config):
        config.fault_tolerance(restart_failed_sub_environments=True, num_consecutive_env_runner_failures_tolerance=4)

    runner = make_runner(Crashes, num_envs=2, fast=False, change=change)
    Crashes.made, Crashes.crashes = 0, 3
    rollout = runner.sample(num_timesteps=30)[0]
    assert rollout.error == "" and len(rollout) >= 30
    # Three times both envs, and the two whose seeds are compared.
    assert Crashes.made == 3 * 2 + 2
    assert runner.metrics.peek("num_env_step_failures") == 3
    Crashes.crashes = 10**9
    error = runner.sample(num_timesteps=30)[0].error
    assert "It failed more often in a row than `num_consecutive_env_runner_failures_tolerance`=4 allows." in error


def test_a_reset_that_always_fails_in_rllibs_loop():
    class Broken(Pair):
        def reset(self, **kwargs):
            raise OSError("no answer")

    runner = make_runner(Broken, fast=False, change=restart)
    assert runner.sample(num_timesteps=3)[0].error.startswith("OSError: no answer at step 0 of the episode in env 0")
