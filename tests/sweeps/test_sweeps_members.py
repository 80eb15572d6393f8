"""A sweep over members of the family: each trial is one of its own, whatever its process was before."""

import csv
import json
import pickle

import pytest
import yaml
from own_members import PlainMember
from sweep_settings import SETTINGS

from rllib_maddpg import IDDPG, MADDPG, MATD3, InferredMADDPG
from rllib_maddpg.algorithm.checkpoints import load_config
from rllib_maddpg.cli.program import main
from rllib_maddpg.plotting.curves import find_runs, group_runs
from rllib_maddpg.sweeps.ranking import read_results
from rllib_maddpg.sweeps.run import SweepOptions, run_sweep

CLASSES = {cls.__name__: cls for cls in (MADDPG, MATD3, IDDPG, InferredMADDPG)} | {"own_members:PlainMember": PlainMember}


def write(folder, algorithms, **keys):
    data = {
        "env": "sweep_envs:CountedEnv",
        "settings": SETTINGS,
        "search_space": {"algorithm": {"grid": algorithms}},
        "stop": {"env_steps": 200},
        "checkpoint_every": 100,
        "max_concurrent": 1,
        **keys,
    }
    (folder / "my.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return folder / "my.yaml"


def rows(out):
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def family(ray_session, tmp_path_factory):
    """All members, one after the other in one process, and their table."""
    folder = tmp_path_factory.mktemp("family")
    assert main(["sweep", str(write(folder, list(CLASSES))), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_every_trial_is_one_of_its_member(family):
    table = rows(family)
    assert {row["algorithm"] for row in table} == set(CLASSES) and {row["status"] for row in table} == {"finished"}
    assert len({read_results(family / row["trial"] / "result.json")[0]["pid"] for row in table}) == 1
    for row in table:
        config = load_config(family / row["checkpoint"])
        assert config.algo_class is CLASSES[row["algorithm"]]
        assert type(config) is type(config.algo_class.get_default_config())
        assert json.loads((family / row["trial"] / "params.json").read_text())["algorithm"] == row["algorithm"]
        last = read_results(family / row["trial"] / "result.json")[-1]
        assert (last["training_iteration"], last["num_env_steps_sampled_lifetime"]) == (2, 200)


@pytest.fixture(scope="module")
def plain(ray_session, tmp_path_factory):
    """A sweep that says nothing of algorithms, with one trial; and its file."""
    folder = tmp_path_factory.mktemp("plain")
    file = write(folder, [], search_space={"tau": {"grid": [0.01]}})
    assert main(["sweep", str(file), "--out", str(folder / "out")]) == 0
    return folder / "out", file


def test_a_member_learns_in_a_sweep_what_it_learns_alone(family, plain):
    """Neither does the one before it in the process change it, nor that Tune knows it by another class."""
    (first,) = (row["trial"] for row in rows(plain[0]))
    # `PlainMember` came last, and is MADDPG by another name.
    (last,) = (row["trial"] for row in rows(family) if row["algorithm"] == "own_members:PlainMember")
    one, other = (read_results(folder / "result.json") for folder in (plain[0] / first, family / last))
    for here, there in zip(one, other, strict=True):
        assert here["env_runners"]["episode_return_mean"] == there["env_runners"]["episode_return_mean"]
        assert here["learners"]["left"]["critic_loss"] == there["learners"]["left"]["critic_loss"]


def test_the_best_one_is_named_and_plays(family, capsys):
    best = json.loads((family / "best.json").read_text())
    assert best["algorithm"] == best["values"]["algorithm"] == rows(family)[0]["algorithm"]
    assert load_config(family / "best_checkpoint").algo_class is CLASSES[best["algorithm"]]
    assert main(["evaluate", str(family), "--episodes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 2


def test_curves_are_told_apart_by_the_algorithm_alone(family):
    labels = {group.label for group in group_runs(find_runs([family]))}
    assert labels == {f"algorithm={name} (1 seed)" for name in CLASSES}


def test_a_sweep_of_another_algorithm_is_not_resumed(family, tmp_path, capsys):
    swept = yaml.safe_load((family / "sweep.yaml").read_text())
    fixed = tmp_path / "fixed.yaml"
    fixed.write_text(yaml.safe_dump({**swept, "algorithm": "MATD3", "search_space": {"tau": {"grid": [0.1, 0.2]}}}))
    out = tmp_path / "out"
    assert main(["sweep", str(fixed), "--out", str(out)]) == 0
    assert [load_config(out / row["checkpoint"]).algo_class for row in rows(out)] == [MATD3, MATD3]
    assert main(["sweep", str(fixed), "--out", str(out), "--resume"]) == 0
    for algorithm, text in (("IDDPG", "'IDDPG'"), (None, "'MADDPG'")):
        other = yaml.safe_load(fixed.read_text())
        other |= {"algorithm": algorithm} if algorithm else {}
        if algorithm is None:
            del other["algorithm"]
        (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
        capsys.readouterr()
        assert main(["sweep", str(tmp_path / "other.yaml"), "--out", str(out), "--resume"]) == 2
        assert f"was made with `algorithm` 'MATD3', not {text}" in capsys.readouterr().err


def test_folders_of_before_there_were_members_can_be_resumed(plain):
    out, file = plain
    with (out / "tuner.pkl").open("rb") as tuner:
        assert pickle.load(tuner)["__trainable_name"] == "MADDPG"
    info = json.loads((out / "sweep.json").read_text())
    del info["sweep"]["algorithm"]
    (out / "sweep.json").write_text(json.dumps(info))
    assert main(["sweep", str(file), "--out", str(out), "--resume"]) == 0


def test_population_of_a_fixed_member(ray_session, tmp_path):
    """A member that takes over another's state is reset in its process, and goes on from the other's checkpoint."""
    file = write(
        tmp_path,
        [],
        algorithm="IDDPG",
        search_space={"tau": {"uniform": [0.01, 0.1]}},
        search="random",
        scheduler={"type": "pbt", "perturb_every": 100},
        seeds=[0, 1],
        max_concurrent=2,
        stop={"env_steps": 300},
    )
    summary = run_sweep(SweepOptions(str(file), str(tmp_path / "out")))
    assert [trial.status for trial in summary.trials] == ["finished", "finished"]
    assert {load_config(trial.checkpoint).algo_class for trial in summary.trials} == {IDDPG}
