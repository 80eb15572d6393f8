"""Recorded env steps, read back with Ray Data, against what really happened in the env."""

import re

import gymnasium as gym
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from ledger_env import LATE_JOINER, LEDGERS, MIXED_END, LedgerEnv
from runners import make_runner
from turn_env import RandomTurns

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.runs.evaluation import _play, evaluation_runner
from rllib_maddpg.sampling.fast_path import reason_for_stock_path

AGENTS = ("a", "b", "c")


def episodes_of(rows):
    """Rows by episode, each episode's in order of time."""
    return [episode.to_dict("records") for _, episode in rows.sort_values("t").groupby("eps_id")]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("script", [MIXED_END, LATE_JOINER])
def test_rows_are_those_of_the_env(tmp_path, script, fast):
    def change(config):
        config.offline_data(output=str(tmp_path), output_max_rows_per_file=16, output_write_remaining_data=True)

    runner = make_runner(LedgerEnv, {"script": script}, num_envs=2, fast=fast, change=change)
    assert bool(reason_for_stock_path(runner)) != fast
    for _ in range(3):
        runner.sample(num_timesteps=14, explore=True)  # fragments end within episodes, too
    ledgers = LEDGERS[-2:]
    runner.stop()
    assert len(list(tmp_path.glob("training/run-000000-*.parquet"))) == 3  # 16 + 16 + 10 rows
    table = pq.read_table(tmp_path)
    names = ("obs", "action", "reward", "next_obs", "terminated", "truncated", "alive")
    assert table.column_names == ["eps_id", "t", *(f"{agent}/{name}" for agent in AGENTS for name in names)]
    types = [table.schema.field(name).type for name in ("eps_id", "t", "a/reward", "b/action", "b/alive")]
    assert list(map(str, types)) == ["string", "int64", "float", "int64", "bool"]
    assert table.schema.field("c/obs").type.list_size == 6 and table.schema.field("c/obs").type.value_type == pa.float32()
    # Number of the runner, something that no other runner of any run has, number of the episode.
    assert all(re.fullmatch(r"0-[0-9a-f]{8}-\d+", name) for name in set(table["eps_id"].to_pylist()))
    episodes = episodes_of(table.to_pandas())
    assert sum(map(len, episodes)) == 42 == sum(len(ledger.rows) for ledger in ledgers)
    length = max(end for _, end, _ in script.values())
    for episode in episodes:
        assert [row["t"] for row in episode] == list(range(len(episode)))
        number, which = (round(float(x) * 100) for x in episode[0]["a/obs"][:2])
        ledger = next(ledger for ledger in ledgers if ledger.number == number)
        for row, truth in zip(episode, ledger.rows[which * length :], strict=False):
            for agent in AGENTS:
                obs, action, reward, next_obs, terminated = truth.get(agent, (None,) * 5)
                assert row[f"{agent}/alive"] == (obs is not None)
                assert row[f"{agent}/terminated"] == bool(terminated)
                assert row[f"{agent}/truncated"] == (script[agent][1:] == (row["t"] + 1, "truncated"))
                np.testing.assert_array_equal(row[f"{agent}/next_obs"], 0 if next_obs is None else next_obs)
                np.testing.assert_array_equal(row[f"{agent}/obs"], 0 if obs is None else obs)
                np.testing.assert_allclose(row[f"{agent}/action"], 0 if obs is None else action, atol=1e-6)
                assert row[f"{agent}/reward"] == (0 if obs is None else np.float32(reward))


def config_for(folder, **settings):
    config = MADDPGConfig().environment("simple_adversary", env_config={"continuous_actions": True})
    config.training(num_steps_sampled_before_learning_starts=50, train_batch_size_per_learner=32)
    config.training(num_env_steps_per_update=50, replay_buffer_config={"capacity": 2000})
    config.rl_module(model_config={"fcnet_hiddens": [16, 16]}).reporting(min_sample_timesteps_per_iteration=100)
    return config.offline_data(output=folder, **settings)


def test_training_and_evaluation_are_recorded_apart_by_all_runners(ray_session, tmp_path):
    config = config_for(tmp_path.as_uri()).env_runners(num_env_runners=2, num_envs_per_env_runner=2)
    algo = config.evaluation(evaluation_interval=1, evaluation_duration=3).build_algo()
    try:
        algo.train()
        stored = len(algo.replay_buffer)
    finally:
        algo.stop()
    files = [path.name for path in (tmp_path / "training").iterdir()]
    assert {name[:10] for name in files} == {"run-000001", "run-000002"}
    training = episodes_of(ray.data.read_parquet(str(tmp_path / "training")).to_pandas())
    # Runners may have sampled more than has been stored.
    assert sum(map(len, training)) >= stored
    assert len(pq.read_table(tmp_path / "evaluation")) == 75
    for episode in training:
        actions = np.stack([row["agent_0/action"] for row in episode])
        assert ((actions >= 0) & (actions <= 1)).all()  # the env's bounds, and not [-1, 1]


def test_evaluating_a_run_adds_nothing_to_its_recordings(tmp_path):
    config = config_for(str(tmp_path / "recorded"))
    config.validate()
    _play(evaluation_runner(config, 1, 0, 0, 1, None, None), 1)
    assert not list((tmp_path / "recorded").iterdir())


def test_a_full_disk_ends_sampling_with_an_error_and_keeps_the_rows(tmp_path, monkeypatch):
    runner = make_runner(
        LedgerEnv, {"script": MIXED_END}, num_envs=1, change=lambda config: config.offline_data(output=str(tmp_path))
    )

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rllib_maddpg.sampling.recording.pq.write_table", full)
    (rollout,) = runner.sample(num_timesteps=5, explore=True)
    assert len(rollout) == 5
    assert "cannot be written to any more ([Errno 28] No space left on device)" in rollout.error


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"output": 5}, "`output`=5 is not allowed: it must be a folder or the URI of one"),
        ({"output_write_episodes": True}, "`output_write_episodes`=True is not allowed: it must be False"),
        (
            {"output_write_method": "write_json"},
            "`output_write_method`='write_json' is not allowed",
        ),
        ({"output_max_rows_per_file": 0}, "`output_max_rows_per_file`=0 is not allowed"),
        ({"output_filesystem": "s3"}, "`output_filesystem`='s3' is not allowed: it must be None. Set `output` only"),
        ({"output": "nowhere://bucket/x"}, "`output`='nowhere://bucket/x' is not allowed: nothing can be written there"),
    ],
)
def test_recordings_that_cannot_be_made(tmp_path, settings, text):
    config = config_for(str(tmp_path)).offline_data(**settings)
    with pytest.raises(ValueError, match=re.escape(text)):
        config.validate()


def test_an_output_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="nothing can be written there"):
        config_for(str(tmp_path / "file")).validate()


class Offset(RandomTurns):
    """The zeros of nobody's action would be 3 in the box of b."""

    def __init__(self, config=None):
        super().__init__(config)
        self.action_spaces["b"] = gym.spaces.Box(2.0, 4.0, (1,), np.float32)


def test_agents_whose_turn_it_is_not_have_no_action(tmp_path):
    def change(config):
        config.offline_data(output=str(tmp_path), output_write_remaining_data=True).env_runners(turn_based=True)

    runner = make_runner(Offset, change=change)
    runner.sample(num_timesteps=60, explore=True)
    runner.stop()
    columns = pq.read_table(tmp_path).to_pydict()
    rows = list(zip(columns["b/alive"], columns["b/acted"], columns["b/acts"], columns["b/action"], strict=True))
    assert {(alive, acted) for alive, acted, _, _ in rows} == {(False, 0.0), (True, 0.0), (True, 1.0)}
    for _, acted, acts, (action,) in rows:
        assert 2.0 <= action <= 4.0 if acted else action == acts == 0.0
