"""`train --algorithm`: real, tiny runs of members of the family; their files, and what resumes them."""

import json

import pytest
from own_members import OwnConfig, OwnMember

from rllib_maddpg import MATD3, MATD3Config
from rllib_maddpg.algorithm.checkpoints import load_config
from rllib_maddpg.cli.program import main
from rllib_maddpg.config.config_file import read_config
from rllib_maddpg.plotting.curves import find_runs, group_runs
from rllib_maddpg.results.run_folder import find_checkpoint
from rllib_maddpg.runs.run import TrainOptions, build_config, train

TINY = {
    "num_steps_sampled_before_learning_starts": 300,
    "train_batch_size_per_learner": 32,
    "min_sample_timesteps_per_iteration": 500,
}


@pytest.fixture(scope="module")
def run(ray_session, tmp_path_factory):
    """A finished run of MATD3, in the folder that it gets by itself."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = [f"{key}={value}" for key, value in TINY.items()]
        argv = ["train", "simple_adversary", "--algorithm", "MATD3", "--env-steps", "1000", "--eval-episodes", "0"]
        assert main([*argv, "--set", *words, "policy_delay=1"]) == 0
    (run,) = (folder / "results").iterdir()
    return run


def test_the_run_folder_names_the_algorithm(run):
    assert run.name.startswith("simple_adversary_MATD3_s0_")
    assert json.loads((run / "run.json").read_text())["algorithm"] == "MATD3"
    assert json.loads((run / "params.json").read_text())["algorithm"] == "MATD3"
    config, had = read_config(run / "config.yaml"), load_config(find_checkpoint(run)[0])
    for one in (config, had):
        assert type(one) is MATD3Config and one.algo_class is MATD3
        assert (one.twin_q, one.policy_delay, one.target_policy_noise) == (True, 1, 0.2)


def test_resume_keeps_the_algorithm_and_refuses_another(run, capsys):
    argv = ["train", "--resume", str(run), "--env-steps", "1500", "--eval-episodes", "0"]
    for other in ("IDDPG", "MADDPG"):
        assert main([*argv, "--algorithm", other]) == 2
        assert f"--algorithm is '{other}', but {run} is a run of MATD3. Leave it out." in capsys.readouterr().err
    assert main([*argv, "--algorithm", "MATDDD3"]) == 2
    assert "Did you mean 'MATD3'" in capsys.readouterr().err
    assert main(argv) == 0
    assert main(["train", "--resume", str(run), "--env-steps", "2000", "--eval-episodes", "0", "--algorithm", "MATD3"]) == 0
    checkpoint, _ = find_checkpoint(run)
    assert checkpoint.name == "000002000" and load_config(checkpoint).algo_class is MATD3
    assert json.loads((run / "run.json").read_text())["algorithm"] == "MATD3"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MADTD3", "`algorithm`='MADTD3' is not allowed: it must be one of ['MADDPG', 'MATD3', 'IDDPG', 'InferredMADDPG']"),
        ("", "`algorithm`='' is not allowed"),
        ("no_such_module:Member", "There is no module 'no_such_module'"),
        ("own_members:OwnMembre", "Module 'own_members' has no 'OwnMembre'. Its classes are"),
        ("rllib_maddpg:MADDPGConfig", "must name a subclass of rllib_maddpg.MADDPG"),
    ],
)
def test_an_unknown_algorithm_is_refused_before_anything_starts(name, text, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["train", "simple_adversary", "--algorithm", name, "--out", str(out)]) == 2
    assert text in capsys.readouterr().err and not out.exists()
    with pytest.raises(ValueError, match="`algorithm`="):
        train(TrainOptions("simple_adversary", algorithm=name, out=str(out)))


def test_settings_of_an_algorithm_of_the_users_are_known(tmp_path, capsys, ray_session):
    out = tmp_path / "out"
    argv = ["train", "simple_adversary", "--algorithm", "own_members:OwnMember", "--env-steps", "500", "--eval-episodes", "0"]
    words = [f"{key}={value}" for key, value in TINY.items()]
    assert main([*argv, "--out", str(out), "--set", *words, "own_switch=yes"]) == 0
    config = load_config(find_checkpoint(out)[0])
    assert type(config) is OwnConfig and config.algo_class is OwnMember and config.own_switch is True
    assert json.loads((out / "run.json").read_text())["algorithm"] == "own_members:OwnMember"
    assert main(["train", "simple_adversary", "--set", "own_switch=yes"]) == 2
    assert "`own_switch` is no setting of MADDPG" in capsys.readouterr().err


def test_an_algorithm_without_a_config_stays_what_it_is(tmp_path, ray_session):
    """Its configs are MADDPG's: only the name tells it."""
    options = {"env_steps": 500, "eval_episodes": 0, "settings": TINY, "out": str(tmp_path / "out")}
    assert train(TrainOptions("simple_adversary", algorithm="own_members.PlainMember", **options)).error is None
    assert read_config(tmp_path / "out" / "config.yaml").algo_class.__name__ == "PlainMember"
    assert main(["train", "--resume", str(tmp_path / "out"), "--env-steps", "1000", "--eval-episodes", "0"]) == 0
    assert read_config(tmp_path / "out" / "config.yaml").algo_class.__name__ == "PlainMember"
    assert load_config(find_checkpoint(tmp_path / "out")[0]).algo_class.__name__ == "PlainMember"


def test_a_run_of_a_preset_is_grouped_by_its_name(run, tmp_path):
    config = build_config(TrainOptions("simple_adversary", settings=TINY))
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "params.json").write_text(json.dumps({"env": config.env, "seed": 0, **TINY, "process_wide_speedups": True}))
    (plain / "result.json").write_text("{}\n")
    labels = {group.label for group in group_runs(find_runs([run, plain]))}
    # What a preset changes by its name is not said again; what was set, is.
    assert labels == {"algorithm=MATD3, policy_delay=1 (1 seed)", "algorithm=MADDPG, policy_delay=1 (1 seed)"}
