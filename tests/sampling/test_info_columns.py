"""Users' columns of rows: filled alike by both loops, checked, recorded, and there in training."""

import re

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from context_env import Reader, landmarks_of, spread_in_context
from ledger_env import ALL_TERMINATE, LATE_JOINER, MIXED_END, LedgerEnv, ZooLedger
from runners import make_runner, rows_of

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.rows.schema import Column
from rllib_maddpg.sampling.fast_path import reason_for_stock_path

AGENTS = ("a", "b", "c")


def inform(game, observations):
    """Infos of those that observe something: the time, lives that are lost in it, and a byte."""
    return {
        agent: {"time": game.time + 0.25, "lives": [-game.time, 2**31 - 1 - game.time], "byte": 250 + game.time % 6}
        for agent in observations
    }


class Informed(LedgerEnv):
    """A ledger that says what time it is; to someone who is not in the game, too."""

    def reset(self, **kwargs):
        observations, _ = super().reset(**kwargs)
        return observations, inform(self, [*observations, "nobody"])

    def step(self, actions):
        *result, _ = super().step(actions)
        return *result, inform(self, [*result[0], "nobody"])


class InformedZoo(ZooLedger):
    """The same in PettingZoo."""

    def reset(self, **kwargs):
        observations, _ = super().reset(**kwargs)
        return observations, inform(self.game, observations)

    def step(self, actions):
        *result, _ = super().step(actions)
        return *result, inform(self.game, result[0])


def time_of(infos):
    return [max(info["time"] for info in infos.values()), len(infos)]


def lives_of(infos):
    return [infos[agent]["lives"] if agent in infos else [-1, -1] for agent in AGENTS]


COLUMNS = [
    Column("clock", "env", width=2, at_next=True, source=time_of),
    Column("lives", "agents", width=2, dtype="int32", at_next=True, source=lives_of),
    Column("byte", "env", dtype="uint8", source=lambda infos: next(iter(infos.values()))["byte"]),
    Column("present", "agents", source=lambda infos: [agent in infos for agent in AGENTS]),
]


def runner_of(env=Informed, script=MIXED_END, num_envs=1, fast=True, columns=COLUMNS, change=None, **env_config):
    return make_runner(env, {"script": script, **env_config}, num_envs, fast=fast, change=change, extra_columns=columns)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("env", [Informed, InformedZoo])
@pytest.mark.parametrize("script", [MIXED_END, LATE_JOINER, ALL_TERMINATE])
@pytest.mark.parametrize("fragment", [1, 7])
def test_values_are_those_of_the_infos_that_came_with_x(env, script, fragment, fast):
    runner = runner_of(env, script, num_envs=2, fast=fast)
    assert bool(reason_for_stock_path(runner)) != fast
    columns = rows_of([runner.sample(num_timesteps=2 * fragment)[0] for _ in range(60 // fragment)])
    t, end = columns["t"][:, 0], max(stop for _, stop, _ in script.values())
    assert len(t) >= 55 and set(t) == set(range(end))
    present = np.array([[script[a][0] <= now and (now <= script[a][1]) for a in AGENTS] for now in t])
    follows = np.array([[script[a][0] <= now <= script[a][1] for a in AGENTS] for now in t + 1])
    extra = env is Informed
    np.testing.assert_array_equal(columns["clock"], np.stack([t + 0.25, present.sum(1) + extra], 1))
    # Also at an episode's end, where x' is no x of another row.
    np.testing.assert_array_equal(columns["new_clock"], np.stack([t + 1.25, follows.sum(1) + extra], 1))
    np.testing.assert_array_equal(columns["present"], present)
    np.testing.assert_array_equal(columns["byte"][:, 0], 250 + t % 6)
    for name, there, now in (("lives", present, t), ("new_lives", follows, t + 1)):
        lives = np.stack([-now, 2**31 - 1 - now], 1)[:, None]
        np.testing.assert_array_equal(columns[name].reshape(-1, 3, 2), np.where(there[:, :, None], lives, -1))
    assert columns["lives"].dtype == np.int32 and columns["byte"].dtype == np.uint8


@pytest.mark.parametrize("fast", [True, False])
def test_whole_episodes_and_new_starts(fast):
    runner = runner_of(num_envs=2, fast=fast)
    runner.sample(num_timesteps=6)
    columns = runner.sample(num_episodes=3)[0].columns
    np.testing.assert_array_equal(columns["clock"][:, 0], columns["t"][:, 0] + 0.25)
    assert (np.bincount(columns["episodes"][:, 0])[2:] >= 5).sum() == 3
    columns = runner.sample(num_timesteps=4, force_reset=True)[0].columns
    assert columns["t"][:, 0].tolist() == [0, 1, 0, 1] and (columns["clock"][:, 0] == columns["t"][:, 0] + 0.25).all()


@pytest.mark.parametrize("fast", [True, False])
def test_recordings_have_them(fast, tmp_path):
    def record(config):
        config.offline_data(output=str(tmp_path), output_max_rows_per_file=None, output_write_remaining_data=True)

    runner = runner_of(num_envs=2, fast=fast, change=record)
    assert bool(reason_for_stock_path(runner)) != fast
    columns = rows_of([runner.sample(num_timesteps=20)[0] for _ in range(2)])
    runner.stop()
    table = pq.read_table(tmp_path / "training").to_pydict()
    order = np.lexsort((columns["t"][:, 0], columns["episodes"][:, 0]))
    recorded = sorted(range(len(order)), key=lambda row: (int(table["eps_id"][row].split("-")[-1]), table["t"][row]))
    assert len(order) == 40 and len(set(table["eps_id"])) == len(set(columns["episodes"][:, 0]))
    for name, values in (
        ("clock", columns["clock"]),
        ("new_clock", columns["new_clock"]),
        ("byte", columns["byte"][:, 0]),
        ("b/lives", columns["lives"][:, 2:4]),
        ("c/new_lives", columns["new_lives"][:, 4:6]),
        ("a/present", columns["present"][:, 0]),
    ):
        np.testing.assert_array_equal([table[name][row] for row in recorded], values[order], err_msg=name)


# ------------------------------------------------------------------------------------------ what does not fit


class Wrong(Exception):
    pass


def wrong_at(step, value):
    """A source that does not fit at one step."""

    def source(infos):
        if int(max(info["time"] for info in infos.values())) == step:
            if isinstance(value, Exception):
                raise value
            return value
        return [0, 0]

    return source


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("step", [0, 3])
@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        ([1.0], "float32", "The `source` of column 'pair' gave an array of shape (1,), not (2,) at step {step} of the episode"),
        (5, "float32", "gave an array of shape (), not (2,)"),
        ([[1, 2]], "int32", "gave an array of shape (1, 2), not (2,)"),
        ([1.5, 2.0], "int32", "The `source` of column 'pair' gave float64, which is not int32 at step {step} of the episode"),
        (["x", "y"], "float32", "gave <U1, which is not float32"),
        ([[1], [2, 3]], "float32", "The `source` of column 'pair' failed (ValueError: "),
        (None, "float32", "gave an array of shape (), not (2,)"),
        ([0, 256], "uint8", "The `source` of column 'pair' gave 256 at step {step} of the episode"),
        ([-1, 0], "uint8", "A column of uint8 has whole numbers from 0 to 255."),
        ([0, 2**31], "int32", "gave 2147483648 at step {step}"),
        ([0.0, np.nan], "float32", "The `source` of column 'pair' gave nan as number 1 at step {step} of the episode in env 0"),
        ([1e300, 0.0], "float32", "gave 1e+300 as number 0 at step {step}"),
        (Wrong("no key"), "float32", "The `source` of column 'pair' failed (Wrong: no key) at step {step} of the episode"),
    ],
)
def test_what_does_not_fit_is_named(value, dtype, text, step, fast):
    runner = runner_of(fast=fast, columns=[Column("pair", "env", width=2, dtype=dtype, source=wrong_at(step, value))])
    rollout = runner.sample(num_timesteps=5)[0]
    assert text.format(step=step) in rollout.error and "env runner 0" in rollout.error
    assert len(rollout) == (max(0, step - 1) if fast else 0)  # the columnar loop keeps the steps before


@pytest.mark.parametrize("fast", [True, False])
def test_numbers_that_need_not_be_finite_pass(fast):
    column = Column("pair", "env", width=2, finite=False, source=wrong_at(1, [np.nan, np.inf]))
    rollout = runner_of(fast=fast, columns=[column]).sample(num_timesteps=3)[0]
    assert not rollout.error
    np.testing.assert_array_equal(rollout.columns["pair"], [[0, 0], [np.nan, np.inf], [0, 0]])


@pytest.mark.parametrize("fast", [True, False])
def test_a_fault_that_may_pass_is_tried_with_a_new_env(fast):
    """As with observations that are not finite."""
    calls = []

    def source(infos):
        calls.append(0)
        return np.nan if len(calls) == 4 else len(calls)

    def tolerate(config):
        config.fault_tolerance(restart_failed_sub_environments=True)

    columns = [Column("count", "env", at_next=True, source=source)]
    rollout = runner_of(fast=fast, columns=columns, change=tolerate).sample(num_timesteps=6)[0]
    assert not rollout.error and len(rollout) >= 6
    count, following = rollout.columns["count"][:, 0], rollout.columns["new_count"][:, 0]
    np.testing.assert_array_equal(following, count + 1)
    assert 4 not in count and 4 not in following


# ------------------------------------------------------------------------------------------ training


def config_in_context(**runners):
    return (
        MADDPGConfig()
        .environment(spread_in_context, env_config={"continuous_actions": True, "max_cycles": 10})
        .training(
            extra_columns=[Column("context", "env", width=6, at_next=True, source=landmarks_of)],
            learner_class=Reader,
            train_batch_size_per_learner=16,
            num_steps_sampled_before_learning_starts=20,
            num_env_steps_per_update=10,
            replay_buffer_config={"capacity": 200, "num_shards": runners.get("num_env_runners", 0)},
        )
        .env_runners(num_envs_per_env_runner=2, **runners)
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .reporting(min_sample_timesteps_per_iteration=60)
        .debugging(seed=0)
    )


@pytest.mark.parametrize("runners", [{}, {"env_runner_fast_path": False}, {"num_env_runners": 1}], ids=str)
def test_a_users_column_reaches_the_learner(build, ray_session, runners, tmp_path):
    Reader.seen.clear()
    algo = build(config_in_context(**runners))
    algo.train()
    assert len(Reader.seen) >= 4
    for obs, context, t in Reader.seen:
        assert obs.shape == (3, 1, 16, 18) and context.shape == (3, 1, 16, 6) and t.dtype == torch.int32
        # Where an agent stands, and the landmarks from there.
        landmarks = obs[..., 4:10] + obs[..., 2:4].tile(3)
        np.testing.assert_allclose(landmarks, context, atol=1e-5)
        assert context.abs().sum() > 1 and (t >= 0).all() and (t < 10).all()
    state = algo.replay_buffer.get_state()
    columns = (state["shards"][0] if "shards" in state else state)["columns"]
    # Landmarks do not move within an episode, at its end neither.
    np.testing.assert_array_equal(columns["context"], columns["new_context"])
    assert len(np.unique(columns["context"], axis=0)) == len(np.unique(columns["episodes"])) >= 6
    assert (columns["truncateds"].min(1) == (columns["t"][:, 0] == 9)).all()
    # It is in checkpoints, from which the run goes on.
    path = algo.save_to_path(str(tmp_path))
    algo.restore_from_path(path)
    restored = algo.replay_buffer.get_state()
    restored = (restored["shards"][0] if "shards" in restored else restored)["columns"]
    for name, values in columns.items():
        np.testing.assert_array_equal(restored[name], values)
        assert restored[name].dtype == values.dtype


def test_a_column_that_cannot_be_filled_ends_training(build):
    config = config_in_context()
    config.training(extra_columns=[Column("context", "env", width=4, source=landmarks_of)])
    with pytest.raises(ValueError, match=re.escape("The `source` of column 'context' gave an array of shape (6,), not (4,)")):
        build(config).train()


def test_an_env_without_infos(build):
    """Its sources get an empty dict."""

    class Silent(LedgerEnv):
        def reset(self, **kwargs):
            return super().reset(**kwargs)[0], None

        def step(self, actions):
            return *super().step(actions)[:4], None

    columns = [Column("number", "env", source=len)]
    for fast in (True, False):
        rollout = runner_of(Silent, fast=fast, columns=columns).sample(num_timesteps=8)[0]
        assert not rollout.error and not rollout.columns["number"].any()
