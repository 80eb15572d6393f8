"""Checkpoints that another Ray has written: they go on as they would have there, or are refused with both versions."""

import json
import re
import tarfile

import numpy as np
import pytest
import ray
import torch
from paths import TESTS
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray_marks import READS_NEWER
from tiny_algorithm import tiny_config

from rllib_maddpg import MADDPG, MADDPGConfig
from rllib_maddpg.algorithm.checkpoint_files import METADATA_FILE
from rllib_maddpg.cli.program import main
from rllib_maddpg.ray_compat import TESTED, why_not_restored

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """`ray-VERSION/before`: checkpoints of two Rays after two iterations; `after.npz`: weights two iterations later.

    Of the config that `test_row_versions.old` names.
    """
    folder = tmp_path_factory.mktemp("written")
    with tarfile.open(TESTS / "data" / "checkpoints_of_rays.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def weights_of(algo):
    learner = algo.learner_group._learner
    return {f"{m}/{n}": t.numpy().copy() for m, module in learner.module.items() for n, t in module.state_dict().items()}


@pytest.mark.parametrize("version", [TESTED[0], pytest.param(TESTED[-1], marks=READS_NEWER)])
def test_goes_on_as_under_the_other_ray(written, version):
    algo = MADDPG.from_checkpoint(str(written / f"ray-{version}" / "before"))
    try:
        before = weights_of(algo)
        algo.train()
        result = algo.train()
        after = weights_of(algo)
        with np.load(written / f"ray-{version}" / "after.npz") as expected:
            assert set(expected) == set(after)
            for name in after:
                # Another processor or torch may round otherwise.
                np.testing.assert_allclose(after[name], expected[name], rtol=0, atol=1e-6, err_msg=name)
                assert (after[name] != before[name]).any(), name
        # Lifetime counts go on, too.
        assert result["training_iteration"] == 4
        assert result["env_runners"]["num_env_steps_sampled_lifetime"] == 160
        assert result["learners"]["__all_modules__"]["num_env_steps_trained_lifetime"] == 16 * 15
    finally:
        algo.stop()


@pytest.mark.parametrize("version", [TESTED[0], pytest.param(TESTED[-1], marks=READS_NEWER)])
def test_actors_of_the_other_ray_play(written, version, capsys):
    assert main(["evaluate", str(written / f"ray-{version}" / "before"), "--episodes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 2


@pytest.mark.skipif(why_not_restored("2.60.0") is None, reason="this Ray reads all that are older than itself")
def test_commands_refuse_what_this_ray_cannot_read(written, capsys):
    assert main(["evaluate", str(written / "ray-2.60" / "before"), "--episodes", "2"]) == 2
    assert f"It was written with Ray 2.60.0; {ray.__version__} is installed." in capsys.readouterr().err


def test_what_this_ray_cannot_read_is_refused_with_both_versions(written, tmp_path, monkeypatch):
    """Where the installed Ray can read all, as if it could not."""
    reason = why_not_restored(f"{TESTED[-1]}.0") or "some reason"
    monkeypatch.setattr("rllib_maddpg.algorithm.checkpoints.why_not_restored", lambda version: version != "0.0" and reason)
    folder = written / f"ray-{TESTED[-1]}" / "before"
    saved = json.loads((folder / METADATA_FILE).read_text())["ray_version"]
    assert saved.startswith(TESTED[-1])
    other = "" if saved == ray.__version__ else f" It was written with Ray {saved}; {ray.__version__} is installed."
    text = f"Checkpoint {folder} cannot be restored: {reason}.{other}"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        MADDPG.from_checkpoint(str(folder))
    config = MADDPGConfig().environment("simple_speaker_listener").rl_module(model_config={"fcnet_hiddens": [8]})
    algo = config.build_algo()
    try:
        before = weights_of(algo)
        with pytest.raises(ValueError, match=re.escape(text)):
            algo.restore_from_path(str(folder))
        assert all(np.array_equal(before[name], value) for name, value in weights_of(algo).items())
    finally:
        algo.stop()


def test_settings_that_this_ray_has_not_are_left_out(written, tmp_path, caplog):
    """A later Ray's, one of which was used."""
    from rllib_maddpg.algorithm.checkpoints import forget_unused
    from rllib_maddpg.config import rllib_settings

    state = {**MADDPGConfig().get_state(), "some_timeout_s": 3.0, "some_switch": False, "some_buffer": 5}
    with pytest.MonkeyPatch.context() as patch:
        for table, key in (("PASSED", "some_timeout_s"), ("PASSED", "some_switch"), ("REFUSED", "some_buffer")):
            patch.setitem(getattr(rllib_settings, table), key, "")
        forget_unused(state)
    assert not {"some_timeout_s", "some_switch", "some_buffer"} & state.keys()
    (told,) = (record.getMessage() for record in caplog.records if "does not know" in record.getMessage())
    assert f"Ray {ray.__version__} does not know the checkpoint's settings ['some_timeout_s']" in told


# ------------------------------------------------------------------------------------------ what older Rays do otherwise


def actor_of(module):
    return torch.cat([p.flatten() for p in module.unwrapped().acting_network.parameters()])


def test_remote_runners_have_newest_actors_for_evaluation_and_the_clock_of_a_restored_run(build, tmp_path):
    config = tiny_config().env_runners(num_env_runners=1).evaluation(evaluation_num_env_runners=1, evaluation_duration=1)
    algo = build(config)
    algo.train()
    algo.evaluate()
    group = algo.eval_env_runner_group
    (theirs,) = group.foreach_env_runner(lambda runner: actor_of(runner.module["agent_0"]), local_env_runner=False)
    assert torch.equal(theirs, actor_of(algo.learner_group._learner.module["agent_0"]))
    path = algo.save_to_path(str(tmp_path))
    resumed = build(tiny_config().env_runners(num_env_runners=1))
    resumed.restore_from_path(path)
    clocks = resumed.env_runner_group.foreach_env_runner(lambda runner: runner.num_env_steps_sampled_lifetime)
    assert clocks == [algo._env_steps] * 2 and algo._env_steps >= 40


@pytest.mark.parametrize(
    "settings", [{"evaluation_interval": 1}, {}, {"evaluation_num_env_runners": 1}], ids=["own", "training", "remote"]
)
def test_an_evaluation_reports_its_own_episodes_only(build, settings):
    algo = build(tiny_config().evaluation(evaluation_duration=1, **settings))
    algo.train()
    returns = []
    for _ in range(3):
        result = algo.evaluate()["env_runners"]
        # Older Rays may play more than asked for on remote runners.
        if result["num_episodes"] == 1:
            assert result["episode_return_min"] == result["episode_return_max"] == result["episode_return_mean"]
        returns.append(result["episode_return_mean"])
    assert len(set(returns)) == 3


class Failing(RLlibCallback):
    def on_episode_end(self, **kwargs):
        raise ArithmeticError("of the callback")


def test_a_runner_that_raises_and_may_not_be_restarted_ends_the_run(build):
    config = tiny_config().env_runners(num_env_runners=1).callbacks(Failing)
    algo = build(config.fault_tolerance(restart_failed_env_runners=False))
    with pytest.raises(RuntimeError, match="Env runner 1 died"):
        algo.train()
