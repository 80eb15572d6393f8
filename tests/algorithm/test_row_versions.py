"""Checkpoints whose joint rows have other columns: older ones go on as they were, newer ones are refused by name."""

import json
import pickle
import re
import tarfile

import numpy as np
import pytest
import torch
from paths import TESTS
from ray_marks import READS_NEWER
from tiny_algorithm import tiny_config

from rllib_maddpg import MADDPG, MADDPGConfig
from rllib_maddpg.algorithm.checkpoint_files import HASHES_FILE, METADATA_FILE
from rllib_maddpg.rows.schema import Column

pytestmark = pytest.mark.usefixtures("ray_session")


def weights_of(algo):
    learner = algo.learner_group._learner
    return {f"{m}/{n}": t.numpy() for m in learner.module.keys() for n, t in learner.module[m].state_dict().items()}  # noqa: SIM118


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """`before`: a checkpoint of rllib_maddpg before rows had a version; `after.npz`: its weights two iterations later.

    Of this config, with which it was made by that version:

        MADDPGConfig().environment("simple_speaker_listener", env_config={"max_cycles": 5})
        .training(train_batch_size_per_learner=16, num_steps_sampled_before_learning_starts=20, num_env_steps_per_update=10,
                  replay_buffer_config={"capacity": 60}, lr=1e-2)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2).rl_module(model_config={"fcnet_hiddens": [8]})
        .reporting(min_sample_timesteps_per_iteration=40).debugging(seed=3)
    """
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(TESTS / "data" / "version_1_checkpoint.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@READS_NEWER
def test_a_run_from_before_goes_on_as_it_would_have(old):
    algo = MADDPG.from_checkpoint(str(old / "before"))
    try:
        columns = algo.replay_buffer.get_state()["columns"]
        assert len(columns["obs"]) == 60
        assert not columns["truncateds"].any() and (columns["episodes"] == -1).all() and (columns["t"] == -1).all()
        before = weights_of(algo)
        before = {name: value.copy() for name, value in before.items()}
        algo.train()
        algo.train()
        after = weights_of(algo)
        with np.load(old / "after.npz") as expected:
            assert set(expected) == set(after)
            for name in after:
                np.testing.assert_allclose(after[name], expected[name], rtol=0, atol=1e-6, err_msg=name)
                assert (after[name] != before[name]).any(), name
        # What came since is known.
        columns = algo.replay_buffer.get_state()["columns"]
        assert (columns["episodes"] >= 0).all() and set(columns["t"].flatten()) == set(range(5))
    finally:
        algo.stop()


@READS_NEWER
def test_a_run_takes_up_columns_that_it_did_not_have(old):
    config = (
        MADDPGConfig()
        .environment("simple_speaker_listener", env_config={"max_cycles": 5})
        .training(train_batch_size_per_learner=16, num_env_steps_per_update=10, replay_buffer_config={"capacity": 60})
        .training(extra_columns=[Column("lives", "agents", dtype="int32", fill=7, source=lambda infos: [1, 2])])
        .rl_module(model_config={"fcnet_hiddens": [8]})
    )
    algo = config.build_algo()
    try:
        algo.restore_from_path(str(old / "before"))
        assert (algo.replay_buffer._columns["lives"] == 7).all() and len(algo.replay_buffer) == 60
    finally:
        algo.stop()


@pytest.fixture(scope="module")
def algo(ray_session):
    algo = tiny_config().build_algo()
    algo.train()
    yield algo
    algo.stop()


def make_future(checkpoint, in_metadata):
    """Says of a checkpoint's rows that they are of version 3."""
    (checkpoint / HASHES_FILE).unlink()
    metadata = json.loads((checkpoint / METADATA_FILE).read_text())
    del metadata["content_hashes"]
    if in_metadata:
        metadata["schema"]["version"] = 3
    (checkpoint / METADATA_FILE).write_text(json.dumps(metadata))
    file = checkpoint / "replay_buffer" / "state.pkl"
    state = pickle.loads(file.read_bytes())
    state["schema"]["version"] = 3
    file.write_bytes(pickle.dumps(state))


@pytest.mark.parametrize("in_metadata", [True, False])
def test_rows_of_the_future_change_nothing(algo, tmp_path, in_metadata):
    algo.save_to_path(str(tmp_path))
    make_future(tmp_path, in_metadata)
    before, rows = weights_of(algo), algo.replay_buffer._rows.clone()
    before = {name: value.copy() for name, value in before.items()}
    with pytest.raises(ValueError, match=r"has joint rows of version 3, made by a newer rllib_maddpg; this one reads versions"):
        algo.restore_from_path(str(tmp_path))
    assert all(np.array_equal(before[name], value) for name, value in weights_of(algo).items())
    assert torch.equal(rows.view(torch.int32), algo.replay_buffer._rows.view(torch.int32))
    with pytest.raises(ValueError, match="version 3"):
        MADDPG.from_checkpoint(str(tmp_path))


def test_a_checkpoint_without_rows_says_nothing_about_them(algo, tmp_path):
    algo.save_to_path(str(tmp_path))
    make_future(tmp_path, True)
    other = tiny_config().training(store_buffer_in_checkpoints=False).build_algo()
    try:
        other.restore_from_path(str(tmp_path))
        assert not len(other.replay_buffer)
    finally:
        other.stop()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda state: state["columns"].pop("t"), "has the columns ['actions', 'alive', 'episodes', "),
        (lambda state: state["schema"]["columns"].update(x={}), "has a column 'x', which this run has not"),
        (lambda state: state["schema"]["columns"]["t"].update(dtype="uint8"), "Column 't' of the replay buffer of the"),
        (lambda state: state["columns"].update(t=state["columns"]["t"].astype(float)), "Column 't' of the checkpoint's replay"),
        (lambda state: state.update(schema={}), "damaged (KeyError: 'version')"),
        (lambda state: state.update(schema=3), "damaged (TypeError"),
    ],
)
def test_a_state_that_does_not_fit(algo, change, text):
    state = algo.replay_buffer.get_state()
    state = {**state, "columns": dict(state["columns"])}
    change(state)
    with pytest.raises(ValueError, match=re.escape(text)):
        algo.replay_buffer.set_state(state)
