"""Checkpoints that Tune's trials write, which are actors: those of before the code was in folders, and today's."""

import json
import pickle
import pickletools
import tarfile

import numpy as np
import pytest
import ray
import torch
from paths import TESTS
from ray import actor, cloudpickle
from ray.rllib.algorithms.algorithm import Algorithm
from ray_marks import READS_NEWER
from tiny_algorithm import tiny_config

from rllib_maddpg import MADDPG
from rllib_maddpg.algorithm import class_file
from rllib_maddpg.algorithm.checkpoint_files import CLASS_FILE
from rllib_maddpg.algorithm.checkpoints import load_config
from rllib_maddpg.cli.program import main
from rllib_maddpg.results.run_folder import find_checkpoint


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """`tune_checkpoint`: of the 2nd iteration of `tune.run("MADDPG", ...)`; `module.pkl`: its listener, by cloudpickle.

    Made before rllib_maddpg had folders, with the config of `test_row_versions.py`.
    """
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(TESTS / "data" / "tune_checkpoint.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def names_in(checkpoint):
    """All strings in the file of the class, so also the names of what it refers to."""
    return {arg for _, arg, _ in pickletools.genops((checkpoint / CLASS_FILE).read_bytes()) if isinstance(arg, str)}


def test_the_old_class_has_methods_that_are_gone(old):
    """Otherwise the tests below would show nothing."""
    assert {"_make_skeleton_class", "MADDPG._for_learners", "rllib_maddpg.joint_algorithm"} <= names_in(old / "tune_checkpoint")
    with pytest.raises(AttributeError, match=r"_for_learners|_get_opentelemetry|Algorithm\._"):
        pickle.loads((old / "tune_checkpoint" / CLASS_FILE).read_bytes())


@READS_NEWER
def test_the_config_of_an_old_trial(old):
    config = load_config(old / "tune_checkpoint")
    assert (config.lr, config.seed, config.replay_buffer_config["capacity"]) == (1e-2, 3, 60)
    assert config.process_wide_speedups is False
    assert class_file.loads((old / "tune_checkpoint" / CLASS_FILE).read_bytes())["class"] is MADDPG


@READS_NEWER
def test_an_old_trial_is_evaluated(ray_session, old, capsys):
    assert main(["evaluate", str(old / "tune_checkpoint"), "--episodes", "2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["episodes"] == 2 and set(printed["agent_return"]) == {"listener_0", "speaker_0"}


@READS_NEWER
def test_an_old_trial_goes_on(ray_session, old):
    algo = MADDPG.from_checkpoint(str(old / "tune_checkpoint"))
    try:
        assert type(algo) is MADDPG and algo._env_steps == 80 and len(algo.replay_buffer) == 60
        with open(old / "module.pkl", "rb") as file:
            module = pickle.load(file)
        weights = {name: value.clone() for name, value in module.state_dict().items()}
        restored = algo.get_weights()["listener_0"]
        assert {name for name in weights if name.startswith("actor.")} == {
            f"actor.layers.{n}.{kind}" for n in (0, 2) for kind in ("weight", "bias")
        }
        assert all(np.array_equal(restored[name], value) for name, value in weights.items())
        algo.train()
        assert algo._env_steps == 120
        name = "actor.layers.0.weight"
        assert not np.array_equal(algo.get_weights()["listener_0"][name], restored[name])
    finally:
        algo.stop()


def test_an_old_module_acts(old):
    with open(old / "module.pkl", "rb") as file:
        module = pickle.load(file)
    obs = 10 * torch.randn(50, 11, generator=torch.Generator().manual_seed(0))
    expected = module.actor(obs).argmax(-1)
    assert len(expected.unique()) > 1
    for copy in (module, cloudpickle.loads(cloudpickle.dumps(module))):
        assert torch.equal(copy.forward_inference({"obs": obs})["actions"], expected)
        assert copy.get_non_inference_attributes() == ["target_actor", "critic", "target_critic"]


@READS_NEWER
def test_a_resumed_old_run_keeps_its_speedups(ray_session, old, tmp_path):
    run = tmp_path / "run"
    arguments = ["--resume", str(old / "tune_checkpoint"), "--out", str(run), "--env-steps", "120", "--eval-episodes", "0"]
    assert main(["train", *arguments]) == 0
    assert load_config(find_checkpoint(run)[0]).process_wide_speedups is True


@pytest.fixture(scope="module")
def trial(ray_session, tmp_path_factory):
    """The checkpoint of an actor, as Tune makes its trials, with `process_wide_speedups=False`."""
    path = tmp_path_factory.mktemp("trial")
    remote = ray.remote(MADDPG).remote(tiny_config().to_dict())
    ray.get(remote.save_to_path.remote(str(path)))
    ray.get(remote.stop.remote())
    return path


def test_a_trial_of_today_names_its_class(trial):
    names = names_in(trial)
    assert {"rllib_maddpg.algorithm.maddpg", "MADDPG"} <= names
    assert "_make_skeleton_class" not in names and not any(name.startswith("MADDPG.") for name in names)
    for read in (MADDPG.from_checkpoint, Algorithm.from_checkpoint):
        algo = read(str(trial))
        algo.stop()
        assert type(algo) is MADDPG


def test_a_setting_that_a_checkpoint_has_stays(trial):
    assert load_config(trial, {"process_wide_speedups": True}).process_wide_speedups is False


def test_a_users_class_keeps_its_methods():
    class Mine(MADDPG):
        def answer(self):
            return 42

    for cls in (Mine, actor._modify_class(Mine)):
        data = cloudpickle.dumps({"class": cls, "ctor_args_and_kwargs": ((), {})})
        assert b"_make_skeleton_class" in data  # no module has it
        read = class_file.loads(data)["class"]
        assert read.__name__ == "Mine" and read.__base__ is MADDPG and read.answer(None) == 42


def test_only_methods_of_this_package_may_be_gone():
    for name in (b"rllib_maddpg.algorithm.maddpg\nGone", b"their_module\nTheir.method", b"json\nJSONDecoder.gone"):
        with pytest.raises((AttributeError, ModuleNotFoundError)):
            class_file.loads(b"c" + name + b"\n.")
