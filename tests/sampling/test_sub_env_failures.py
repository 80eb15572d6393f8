"""Sub-envs that fail while sampling: what is kept, what is rebuilt, and what is said."""

import gc
import re

import gymnasium as gym
import numpy as np
import pytest
from ledger_env import MIXED_END, TIME_LIMIT, LedgerEnv, TurnsEnv
from runners import make_runner

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.envs import resolve_env

# The envs that this process has made, and those that it has closed.
MADE, CLOSED = [], []


def raises(result):
    raise KeyError("joint limit")


def nan_observation(result):
    result[0]["agent_1"] = result[0]["agent_1"].copy()
    result[0]["agent_1"][4] = np.nan


def infinite_reward(result):
    result[1]["agent_2"] = float("inf")


def wrong_shape(result):
    result[0]["agent_1"] = result[0]["agent_1"][:-1]


def shapes_that_only_add_up(result):
    result[0]["agent_1"], result[0]["agent_2"] = result[0]["agent_1"][:-1], np.append(result[0]["agent_2"], 0)


def two_dimensional(result):
    result[0]["agent_1"] = result[0]["agent_1"][:, None]


def missing_agent(result):
    del result[0]["agent_0"]


def missing_reward(result):
    del result[1]["agent_0"]


def two_rewards(result):
    for agent in result[1]:
        result[1][agent] = np.zeros(2)


def stranger(result):
    result[0]["agent_7"] = result[0]["agent_0"]


FAULTS = {
    raises: r"KeyError: 'joint limit' at",
    nan_observation: "The observation of agent 'agent_1' is nan at",
    infinite_reward: "The reward of agent 'agent_2' is inf at",
    wrong_shape: r"Agent 'agent_1': observation has shape \(17,\), not \(18,\) at",
    shapes_that_only_add_up: r"Agent 'agent_1': observation has shape \(17,\), not \(18,\) at",
    two_dimensional: r"Agent 'agent_1': observation has shape \(18, 1\), not \(18,\) at",
    missing_agent: "Agent 'agent_0' has no observation, though it is in the game, at",
    missing_reward: "The reward of agent 'agent_0' is 'missing' at",
    two_rewards: r"The reward of agent 'agent_0' is array\(\[0., 0.\]\) at",
    stranger: "Agent 'agent_7' is not one of .* at",
}


# What an env's code does, it does again.
LASTING = [wrong_shape, shapes_that_only_add_up, two_dimensional, stranger]
PASSING = [fault for fault in FAULTS if fault not in LASTING]


class Faulty(gym.Wrapper):
    """simple_spread in which `fault` befalls env number `which` at step 3 of its second episode; or always, if `always`."""

    no_more = False

    def __init__(self, config):
        super().__init__(resolve_env("simple_spread")({"continuous_actions": True, "max_cycles": 10}))
        self.plan, self.number, self.episode = config, len(MADE), -1
        MADE.append(self)
        if Faulty.no_more:
            raise OSError("no display")

    def reset(self, **kwargs):
        self.episode, self.time = self.episode + 1, 0
        if self.plan.get("at_reset") and self.number == 1 and self.episode == 1:
            raise TimeoutError("no answer")
        return self.env.reset(**kwargs)

    def step(self, action):
        self.time += 1
        result = self.env.step(action)
        hit = (self.number == 1 and self.episode == 1) or self.plan.get("always")
        if hit and self.time == 3 and "fault" in self.plan:
            self.plan["fault"](result)
        return result

    def close(self):
        CLOSED.append(self)


def make(worker_index=0, num_envs=3, tolerance=None, restart=False, **plan):
    MADE.clear()
    CLOSED.clear()

    def change(config):
        config.fault_tolerance(restart_failed_sub_environments=restart)
        if tolerance is not None:
            config.fault_tolerance(num_consecutive_env_runner_failures_tolerance=tolerance)

    # The config's check has an env of its own.
    runner = make_runner(Faulty, plan, num_envs, worker_index, change=change)
    for env in MADE[:-num_envs]:
        MADE.remove(env)
    for e, env in enumerate(MADE):
        env.number = e
    CLOSED.clear()
    return runner


def starts_of(columns):
    """Rows whose agents have just been reset: no agent of simple_spread moves then."""
    obs = columns["obs"].reshape(len(columns["obs"]), 3, 18)
    return np.flatnonzero(~obs[:, :, :2].any((1, 2)))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_a_failure_ends_the_sample_and_keeps_all_good_rows(fault):
    rollout = make(fault=fault).sample(num_timesteps=90)[0]
    assert re.match(FAULTS[fault] + " step 3 of the episode in env 1 of env runner 0", rollout.error), rollout.error
    assert ("`restart_failed_sub_environments`" in rollout.error) == (fault in PASSING)
    # 12 whole rounds, and the 13th of the two other envs.
    assert len(rollout) == 3 * 12 + 2
    clean = make().sample(num_timesteps=90)[0].columns
    for name, column in rollout.columns.items():
        envs = [clean[name][30 * e :][: 12 if e == 1 else 13] for e in range(3)]
        np.testing.assert_array_equal(column, np.concatenate(envs), err_msg=name)


@pytest.mark.parametrize("fault", LASTING, ids=lambda f: f.__name__)
@pytest.mark.parametrize("worker_index", [0, 1])
def test_a_fault_that_cannot_pass_ends_the_sample_at_once(fault, worker_index):
    rollout = make(worker_index, restart=True, fault=fault).sample(num_timesteps=90)[0]
    assert re.match(FAULTS[fault] + f" step 3 of the episode in env 1 of env runner {worker_index}", rollout.error)
    assert "restart" not in rollout.error and "in a row" not in rollout.error
    assert len(rollout) == 3 * 12 + 2 and len(MADE) == 3


@pytest.mark.parametrize(("fault", "worker_index"), [(fault, 0) for fault in PASSING] + [(raises, 1), (nan_observation, 1)])
def test_a_failed_env_alone_is_made_anew(fault, worker_index, caplog):
    runner = make(worker_index, restart=not worker_index, fault=fault)
    others = [runner.env.envs[e].unwrapped for e in (0, 2)]
    rollout = runner.sample(num_timesteps=90)[0]
    assert rollout.error == "" and len(rollout) >= 90
    assert len(MADE) == 4 and MADE[1] in CLOSED and not {MADE[0], MADE[2], MADE[3]} & set(CLOSED)
    assert [runner.env.envs[e].unwrapped for e in (0, 2)] == others and runner.num_envs == 3
    # 31 rounds: the failed one has no row, and the new env starts in the round after it.
    assert len(rollout) == 3 * 31 - 1
    columns = rollout.columns
    assert list(starts_of(columns)) == [0, 10, 20, 30, 31, 41, 31 + 12, 31 + 22, 61, 71, 81, 91]
    # Episode numbers go on: no game is played twice.
    assert runner.episode_numbers == [4, 4, 4]
    firsts = columns["obs"][starts_of(columns)]
    assert len(np.unique(firsts, axis=0)) == len(firsts)
    clean = make(worker_index).sample(num_timesteps=93)[0].columns
    third = clean["obs"][31 + 20 : 31 + 29]
    np.testing.assert_array_equal(columns["obs"][31 + 12 : 31 + 21], third)
    warned = [r.getMessage() for r in caplog.records if "rebuilt" in r.getMessage()]
    assert len(warned) == 1 and f"env 1 of env runner {worker_index}" in warned[0] and "(1 of at most 100" in warned[0]
    metrics = runner.get_metrics()
    assert metrics["num_env_step_failures"].peek() == 1
    assert metrics["num_env_steps_sampled_lifetime"].peek() == len(rollout)
    # Returns of nine whole episodes and none of the broken one.
    assert metrics["num_episodes_lifetime"].peek() == 3 + 2 + 3


def test_rewards_that_are_no_numbers_in_the_only_env():
    rollout = make(num_envs=1, fault=two_rewards, always=True).sample(num_timesteps=9)[0]
    assert rollout.error.startswith("The reward of agent 'agent_0' is array([0., 0.]) at step 3") and len(rollout) == 2


def test_sampling_goes_on_after_a_failure_in_the_next_call():
    runner = make(restart=True, fault=raises)
    fragments = [runner.sample(num_timesteps=3)[0] for _ in range(30)]
    assert all(f.error == "" for f in fragments)
    # RLlib's rule: at least as many rows as asked for. So the call of the failed round has a second one.
    assert [len(f) for f in fragments] == [3] * 12 + [5] + [3] * 17
    whole = make(restart=True, fault=raises).sample(num_timesteps=92)[0].columns
    by_env = [[], [], []]
    for f in fragments:
        at = 0
        for e, n in enumerate([2, 1, 2] if len(f) == 5 else [1, 1, 1]):
            by_env[e].append(f.columns["obs"][at : at + n])
            at += n
    np.testing.assert_array_equal(np.concatenate([block for blocks in by_env for block in blocks]), whole["obs"])


def test_failures_in_a_row_are_counted_and_a_good_fragment_ends_the_row():
    runner = make(restart=True, tolerance=2, fault=raises, always=True, num_envs=1)
    # Every third call meets the fault, the others do not.
    assert [runner.sample(num_timesteps=1)[0].error for _ in range(12)] == [""] * 12
    assert runner.metrics.peek("num_env_step_failures") == 5
    runner = make(restart=True, tolerance=2, fault=raises, always=True, num_envs=1)
    rollout = runner.sample(num_timesteps=50)[0]
    assert len(rollout) == 3 * 2 and len(MADE) == 1 + 2
    assert "failed more often in a row than `num_consecutive_env_runner_failures_tolerance`=2 allows" in rollout.error
    # Called again, the row goes on.
    again = runner.sample(num_timesteps=50)[0]
    assert len(again) == 2 and again.error


def test_all_envs_fail_in_one_round():
    runner = make(restart=True, fault=nan_observation, always=True)
    rollout = runner.sample(num_timesteps=12)[0]
    # Two good rounds, one lost, two good ones.
    assert rollout.error == "" and len(rollout) == 12 and len(MADE) == 6
    assert runner.metrics.peek("num_env_step_failures") == 3
    assert list(starts_of(rollout.columns)) == [0, 2, 4, 6, 8, 10]


def test_a_turn_based_game_is_told_from_a_passing_fault():
    """The same agent missing at the same step twice running is the game's rule: 100 new envs would not change it."""
    runner = make_runner(TurnsEnv, {"script": TIME_LIMIT}, worker_index=1)
    rollout = runner.sample(num_timesteps=40)[0]
    assert rollout.error.startswith("Agent 'a' has no observation, though it is in the game, at step 2 of the episode in env 0")
    assert rollout.error.endswith("This happens in every episode.") and len(rollout) == 2


def test_a_reset_that_fails_and_an_env_that_cannot_be_made(monkeypatch):
    runner = make(restart=True, at_reset=True)
    rollout = runner.sample(num_timesteps=90)[0]
    assert rollout.error == "" and len(rollout) == 90 and len(MADE) == 4
    rollout = make(at_reset=True).sample(num_timesteps=90)[0]
    assert rollout.error.startswith("TimeoutError: no answer at step 0 of the episode in env 1 of env runner 0.")
    assert len(rollout) == 30
    runner = make(restart=True, tolerance=3, at_reset=True)
    monkeypatch.setattr(Faulty, "no_more", True)
    rollout = runner.sample(num_timesteps=90)[0]
    assert rollout.error.startswith("OSError: no display at step 0") and len(rollout) == 30


def test_a_new_env_stays_open():
    runner = make(restart=True, fault=raises)
    runner.sample(num_timesteps=90)
    gc.collect()
    assert MADE[3] not in CLOSED


def test_whole_episodes_of_envs_that_fail():
    runner = make(restart=True, fault=raises)
    rollout = runner.sample(num_episodes=6, explore=False)[0]
    assert rollout.error == ""
    metrics = runner.get_metrics()
    assert metrics["episode_len_mean"].peek() == 10 and metrics["num_episodes"].peek() == 6


def test_an_agent_that_comes_back_after_its_end():
    class Revenant(LedgerEnv):
        def step(self, actions):
            result = super().step(actions)
            if self.time == 4:
                result[0]["b"] = result[0]["a"]
            return result

    rollout = make_runner(Revenant, {"script": MIXED_END}).sample(num_timesteps=10)[0]
    assert rollout.error.startswith("Agent 'b' is observed after its end at step 4") and len(rollout) == 3


def test_an_actor_that_has_diverged_is_not_taken_for_a_broken_env():
    runner = make(restart=True)
    runner.sample(num_timesteps=6)
    state = runner.module.get_state()
    next(iter(state["agent_1"].values()))[...] = np.nan
    runner.set_state({"rl_module": state})
    rollout = runner.sample(num_timesteps=6, explore=False)[0]
    assert rollout.error.startswith("The action of agent 'agent_1' is nan in env 0 of env runner 0: its actor has diverged.")
    assert len(rollout) == 0 and len(MADE) == 3


def test_evaluation_raises_what_training_hands_on():
    def change(config):
        config.in_evaluation = True

    MADE.clear()
    runner = make_runner(Faulty, {"fault": raises, "always": True}, change=change)
    with pytest.raises(ValueError, match="joint limit"):
        runner.sample(num_episodes=1)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("restart", "rows"), [(True, 400), (False, None)])
def test_a_remote_runner_with_a_faulty_env(restart, rows):
    class Fault(LedgerEnv):
        def step(self, actions):
            result = super().step(actions)
            if self.episode == 2 and self.time == 2:
                result[1]["b"] = float("nan")
            return result

    config = MADDPGConfig().environment(Fault, env_config={"script": TIME_LIMIT}).debugging(seed=0)
    config.env_runners(num_env_runners=1, num_envs_per_env_runner=2)
    config.fault_tolerance(restart_failed_env_runners=restart).reporting(min_sample_timesteps_per_iteration=100)
    algo = config.build_algo()
    try:
        if restart:
            for _ in range(4):
                result = algo.train()
            assert len(algo.replay_buffer) == result["num_env_steps_sampled_lifetime"] >= rows
            assert result["env_runners"]["num_env_step_failures"] > 10
            assert np.isfinite(algo.replay_buffer.get_state()["columns"]["rewards"]).all()
        else:
            with pytest.raises(
                ValueError, match="reward of agent 'b' is nan at step 2 of the episode in env 0 of env runner 1"
            ):
                algo.train()
            assert len(algo.replay_buffer) == 2 * 9
    finally:
        algo.stop()


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ((1, 2), "2 values and not 5"),
        (({}, {}, None, None, {}), "None as terminateds"),
        ((None,) * 5, "None as observations"),
    ],
    ids=str,
)
def test_a_step_that_gives_something_else(result, said, monkeypatch):
    runner = make()
    monkeypatch.setattr(runner.env.envs[2], "step", lambda action: result)
    rollout = runner.sample(num_timesteps=9)[0]
    assert rollout.error.startswith(
        f"`step` returned {said} at step 1 of the episode in env 2 of env runner 0. `step` must return"
    )
    assert len(rollout) == 2
