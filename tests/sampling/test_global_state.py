"""The env's global state in rows: alike in both loops, right at each end, asked where a critic sees it, else refused."""

import re
from functools import partial

import gymnasium as gym
import numpy as np
import pyarrow.parquet as pq
import pytest
from ledger_env import LATE_JOINER, MIXED_END, LedgerEnv, ZooLedger
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from runners import make_runner, rows_of

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.modules.views import VIEWS, View
from rllib_maddpg.rows.schema import Column
from rllib_maddpg.sampling.fast_path import reason_for_stock_path

slow = partial(pytest.param, marks=pytest.mark.slow)


def state_of(game):
    """Two by two numbers that no other moment of the env has, in an array that the env goes on with."""
    if not hasattr(game, "_state"):
        game._state = np.zeros((2, 2))
    game._state[:] = [[game.number, game.episode], [game.time, 7]]
    game.asked = getattr(game, "asked", 0) + 1
    return game._state


class Stated(LedgerEnv):
    def state(self):
        return state_of(self)


class StatedZoo(ZooLedger):
    """The same in PettingZoo."""

    def state(self):
        return state_of(self.game)


class StatedInInfos(LedgerEnv):
    """The same in infos, under a key: of all agents together, or of one that observes."""

    def reset(self, **kwargs):
        return super().reset(**kwargs)[0], self._infos()

    def step(self, actions):
        result = super().step(actions)
        return *result[:4], self._infos()

    def _infos(self):
        owner = "__common__" if self.time % 2 else self.possible_agents[0]
        return {"a": {"other": 1}, owner: {"map": state_of(self)}}


GAMES = {"state()": (Stated, None), "PettingZoo": (StatedZoo, None), "infos": (StatedInInfos, "map")}


def runner_of(env, key=None, script=MIXED_END, num_envs=1, fast=True, view="state", change=None, **training):
    return make_runner(env, {"script": script}, num_envs, fast=fast, change=change, critic_view=view, state_key=key, **training)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("script", [MIXED_END, LATE_JOINER])
def test_states_are_those_of_the_moment(game, script, fast):
    """At x that before the step; at x' that after it, also where the episode has ended and the env is reset next."""
    env, key = GAMES[game]
    runner = runner_of(env, key, script, num_envs=2, fast=fast)
    assert bool(reason_for_stock_path(runner)) != fast
    columns = rows_of([runner.sample(num_timesteps=n)[0] for n in (2, 14, 30)])
    t, length = columns["t"][:, 0], max(stop for _, stop, _ in script.values())
    assert set(t) == set(range(length))
    number = columns["obs"][:, :1] * 100  # agent a's first column says which env and episode it is
    episode = columns["obs"][:, 1:2] * 100
    expected = np.column_stack([number, episode, t, np.full(len(t), 7)])
    np.testing.assert_allclose(columns["state"], expected, atol=1e-4)
    np.testing.assert_allclose(columns["new_state"], expected + np.array([0, 0, 1, 0]), atol=1e-4)
    assert columns["state"].dtype == np.float32 and (t == length - 1).any()


@pytest.mark.parametrize("game", GAMES)
def test_both_loops_give_equal_rows(game):
    env, key = GAMES[game]
    fast, stock = (runner_of(env, key, num_envs=2, fast=fast).sample(num_timesteps=40)[0].columns for fast in (True, False))

    def ordered(columns):
        order = np.lexsort((columns["t"][:, 0], columns["episodes"][:, 0]))
        return {name: values[order] for name, values in columns.items()}

    fast, stock = ordered(fast), ordered(stock)
    assert fast.keys() == stock.keys() and len(fast["t"]) == len(stock["t"]) == 40
    for name in ("state", "new_state", "obs", "t", "episodes", "truncateds", "terminateds"):
        np.testing.assert_array_equal(fast[name], stock[name], err_msg=name)


def test_wrappers_that_hand_the_state_on():
    """SuperSuit's, and the direct stepping of mpe2: three agents of 18 numbers each, whatever they observe."""
    for wrappers in ([], [["frame_stack_v2", {"stack_size": 2}]], ["black_death_v3"]):
        runner = make_runner("simple_spread", {"wrappers": wrappers, "max_cycles": 4}, critic_view="state+all")
        columns = runner.sample(num_timesteps=8)[0].columns
        assert columns["state"].shape == (8, 54)
        now = columns["obs"].reshape(8, 3, -1)[:, :, -18:].reshape(8, 54)  # of stacked frames the last one is the newest
        np.testing.assert_allclose(columns["state"], now, atol=1e-6)
        np.testing.assert_allclose(columns["new_state"][3], columns["new_obs"].reshape(8, 3, -1)[3, :, -18:].ravel(), atol=1e-6)


def test_rllibs_adapter_hands_it_on():
    def make(config):
        return ParallelPettingZooEnv(StatedZoo({"script": MIXED_END}))

    assert make_runner(make, critic_view="state").sample(num_timesteps=4)[0].columns["new_state"][:, 2].tolist() == [1, 2, 3, 4]


def test_a_state_beside_other_spaces_and_single_agents():
    """An int, a bool and a list are states, too; of one agent, and of a Gymnasium env."""

    class Tiny(gym.Env):
        observation_space = action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

        def reset(self, *, seed=None, options=None):
            self.time = 0
            return np.zeros(2, np.float32), {}

        def step(self, action):
            self.time += 1
            return np.zeros(2, np.float32), 0.0, False, self.time == 3, {}

        def state(self):
            return [self.time, True, 0.5]

    columns = make_runner(lambda config: Tiny(), critic_view="state").sample(num_timesteps=6)[0].columns
    np.testing.assert_array_equal(columns["state"], [[t, 1, 0.5] for t in (0, 1, 2)] * 2)
    np.testing.assert_array_equal(columns["new_state"], [[t, 1, 0.5] for t in (1, 2, 3)] * 2)


@pytest.mark.parametrize("fast", [True, False])
def test_the_env_is_asked_only_where_a_critic_sees_it(fast):
    """Once after each step and reset; and not at all for other views."""
    for view, asks in (("state", True), ("all", False), ("own", False)):
        runner = runner_of(Stated, fast=fast, view=view)
        runner.sample(num_timesteps=12)
        game = runner.env.envs[0].unwrapped
        assert getattr(game, "asked", 0) == (12 + game.episode + 1 if asks else 0)
        assert ("state" in runner.schema) == asks


def test_one_module_is_enough():
    def own(config):
        config.multi_agent(algorithm_config_overrides_per_module={"b": MADDPGConfig.overrides(critic_view="state")})

    runner = runner_of(Stated, view="own", change=own)
    assert runner.sample(num_timesteps=5)[0].columns["state"].shape == (5, 4)


def test_a_users_column_and_infos_stay_as_they_are():
    """Infos of the env have nothing more in them; and a column "state" of `extra_columns` is the state, if there is one."""
    columns = [Column("owners", "env", source=len)]
    rollout = runner_of(Stated, extra_columns=columns).sample(num_timesteps=5)[0]
    assert not rollout.columns["owners"].any() and rollout.columns["state"].any()
    mine = [Column("state", "env", width=2, at_next=True, source=lambda infos: [3, 4])]
    runner = runner_of(LedgerEnv, extra_columns=mine)
    assert (runner.sample(num_timesteps=5)[0].columns["new_state"] == [3, 4]).all()


def test_recordings_have_it(tmp_path):
    def record(config):
        config.offline_data(output=str(tmp_path), output_max_rows_per_file=None, output_write_remaining_data=True)

    runner = runner_of(Stated, change=record)
    columns = runner.sample(num_timesteps=12)[0].columns
    runner.stop()
    table = pq.read_table(tmp_path / "training").to_pydict()
    for name in ("state", "new_state"):
        np.testing.assert_array_equal(np.stack(table[name]), columns[name])


# ------------------------------------------------------------------------------------------ what is refused


class Failing(LedgerEnv):
    """Its state is `late` from step 2 on."""

    late = None

    def state(self):
        late = self.late if self.time >= 2 else [1.0, 2.0]
        if isinstance(late, Exception):
            raise late
        return late


@pytest.mark.parametrize(
    ("late", "text"),
    [
        ([1.0], "The env's `state()` gave 1 numbers at step 2 of the episode in env 0 of env runner 0. The env began with 2."),
        (np.zeros((2, 2)), "The env's `state()` gave 4 numbers at step 2"),
        ([np.nan, 1.0], "The env's `state()` gave nan as number 0 at step 2"),
        ([1e300, 1.0], "The env's `state()` gave 1e+300 as number 0 at step 2"),
        ({"map": 1}, "The env's `state()` gave a dict of object at step 2"),
        (["x", "y"], "The env's `state()` gave a list of <U1 at step 2"),
        ([[1], [2, 3]], "The env's `state()` gave no array of numbers"),
        (KeyError("world"), "The env's `state()` failed (KeyError: 'world') at step 2"),
        (None, "The env's `state()` gave a NoneType of object at step 2"),
    ],
)
def test_a_state_that_does_not_fit_is_named(late, text):
    """In the words of both loops, which ask in one place; RLlib's own is tried with a part of these."""
    assert_named(late, text, fast=True)


def test_a_state_that_does_not_fit_is_named_in_rllibs_loop():
    assert_named([1.0], "The env's `state()` gave 1 numbers at step 2 of the episode in env 0", fast=False)


def assert_named(late, text, fast):
    env = type("Late", (Failing,), {"late": late})
    rollout = runner_of(env, fast=fast).sample(num_timesteps=5)[0]
    assert text in rollout.error and len(rollout) == (1 if fast else 0)


@pytest.mark.parametrize("fast", [True, False])
def test_a_key_that_is_missing_later_is_named(fast):
    class Forgets(StatedInInfos):
        def _infos(self):
            return super()._infos() if self.time < 3 else {"a": {"other": 1}}

    rollout = runner_of(Forgets, "map", fast=fast).sample(num_timesteps=5)[0]
    assert "No info has the key 'map', where `state_key` looks for the global state at step 3" in rollout.error
    assert "Their keys are ['other']." in rollout.error


class Plain(LedgerEnv):
    pass


class NoState(StatedZoo):
    state = ZooLedger.state  # PettingZoo's, which raises


class Empty(LedgerEnv):
    def state(self):
        return []


@pytest.mark.parametrize(
    ("env", "settings", "text"),
    [
        (
            Plain,
            {},
            "`critic_view`='state' of ['a', 'b', 'c'] is not allowed: env='Plain' has no method `state()`.",
        ),
        (NoState, {}, "env='NoState' has no global state: state() method has not been implemented in the environment ledger."),
        (Empty, {}, "env='Empty': The env's `state()` gave no number at all after `reset`."),
        (Stated, {"state_key": "map"}, "env='Stated': No info has the key 'map', where `state_key` looks for the global state"),
        (StatedInInfos, {"state_key": "other"}, None),
        (
            Stated,
            {"critic_view": "all", "state_key": "map"},
            "`state_key`='map' is not allowed: it must be None where",
        ),
        (Stated, {"critic_view": "states"}, "it must be one of ['all', 'own', 'state', 'state+all'], or a View."),
        (Stated, {"extra_columns": [Column("new_state", "env", source=len)]}, "Rename yours."),
        (Stated, {"state_key": 3}, "`state_key`=3 is not allowed: it must be a word, or None"),
    ],
)
def test_validate_refuses_what_has_no_state(env, settings, text):
    config = MADDPGConfig().environment(env, env_config={"script": MIXED_END}).training(critic_view="state")
    config.training(**settings)
    if text is None:
        config.validate()
        assert config._global_state_width == 1
        return
    with pytest.raises(ValueError, match=re.escape(text)):
        config.validate()


def test_views_of_these_names():
    assert VIEWS["state"] == View("state", columns=("state",), observations=False)
    for wrong in ({"name": "state"}, {"name": "state+all", "agents": "own", "columns": ("state",)}):
        with pytest.raises(ValueError, match=r"is the name of the view with"):
            View(**wrong)
    with pytest.raises(ValueError, match="observations=False and columns=\\(\\)"):
        View("blind", observations=False)


def test_a_view_of_ones_own_sees_it_beside_its_agents():
    """State and its own agent: a `View` that names the column."""
    view = View("mine", agents="own", columns=("state",), observations=False)
    runner = runner_of(Stated, view=view)
    assert runner.sample(num_timesteps=3)[0].columns["state"].shape == (3, 4)
    assert view.obs_dim(runner.schema, "a") == 4 and view.action_dim(runner.schema, "a") == 2


def test_the_memory_check_counts_it(monkeypatch):
    from rllib_maddpg.config import agent_mapping

    counted = []
    monkeypatch.setattr(agent_mapping, "check_replay_memory", lambda config, size, has_images: counted.append(size))
    for view in ("all", "state"):
        MADDPGConfig().environment(Stated, env_config={"script": MIXED_END}).training(critic_view=view).validate()
    assert counted[1] - counted[0] == 4 * 2 * 4  # two states of four float32


# ------------------------------------------------------------------------------------------ training


class Hidden(MultiAgentEnv):
    """Agents that observe nothing of the number on which their reward depends; only the state has it."""

    def __init__(self, config=None):
        super().__init__()
        self.agents = self.possible_agents = ["a", "b"]
        self.observation_spaces = dict.fromkeys(self.agents, gym.spaces.Box(-1, 1, (1,), np.float32))
        self.action_spaces = dict.fromkeys(self.agents, gym.spaces.Discrete(2))
        self.rng = np.random.default_rng(0)

    def _observe(self):
        self.number = self.rng.standard_normal()
        return dict.fromkeys(self.agents, np.zeros(1, np.float32)), {}

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return self._observe()

    def step(self, actions):
        rewards = dict.fromkeys(self.agents, self.number)
        self.time += 1
        observations, infos = self._observe()
        return observations, rewards, {"__all__": False}, {"__all__": self.time == 5}, infos

    def state(self):
        return [self.number]


def config_of_hidden(view, **runners):
    return (
        MADDPGConfig()
        .environment(Hidden)
        .training(
            critic_view=view,
            gamma=0.0,
            lr=0.02,
            train_batch_size_per_learner=64,
            num_steps_sampled_before_learning_starts=64,
            num_env_steps_per_update=2,
            replay_buffer_config={"capacity": 600, "num_shards": runners.get("num_env_runners", 0)},
        )
        .env_runners(**runners)
        .rl_module(model_config={"fcnet_hiddens": [16]})
        .reporting(min_sample_timesteps_per_iteration=500)
        .debugging(seed=0)
    )


@pytest.mark.parametrize("runners", [{}, slow({"env_runner_fast_path": False}), {"num_env_runners": 1}], ids=str)
def test_training_from_the_state_and_a_checkpoint(build, ray_session, runners, tmp_path):
    """With shards, too. The reward is the state, which its critic finds out; without it the error is about E|N(0, 1)| = 0.8."""
    errors = {}
    for view in ("state",) if runners else ("state", "all"):
        algo = build(config_of_hidden(view, **runners))
        errors[view] = algo.train()["learners"]["a"]["td_error_mean"]
        if view == "state":
            algo.restore_from_path(algo.save_to_path(str(tmp_path)))
            state = algo.replay_buffer.get_state()
            columns = (state["shards"][0] if "shards" in state else state)["columns"]
            np.testing.assert_array_equal(columns["state"][:, 0], columns["rewards"][:, 0])
            algo.train()
    assert errors["state"] < 0.25 and (runners or errors["all"] > 0.5)
