"""Sweeps whose trials share one Learner: what a file may say, and real ones with ASHA, PBT, failures, Ctrl-C and `--resume`."""

import csv
import json
import os
import re
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import yaml
from paths import ROOT
from sweep_driver import Driver
from sweep_settings import SETTINGS

from rllib_maddpg.cli.program import main
from rllib_maddpg.plotting.curves import find_runs, group_runs
from rllib_maddpg.runs.reporting import SLOT, MADDPGReporter
from rllib_maddpg.shared.life import NAMESPACE, actor_name
from rllib_maddpg.sweeps.command import Screen
from rllib_maddpg.sweeps.folder import SweepFolder
from rllib_maddpg.sweeps.ranking import read_results
from rllib_maddpg.sweeps.resources import Placement, check_resources, place
from rllib_maddpg.sweeps.run import SweepOptions, run_sweep
from rllib_maddpg.sweeps.schema import read_sweep
from rllib_maddpg.sweeps.trial_config import check_trials, make_config, param_space

STEPS = "num_env_steps_sampled_lifetime"
PLAIN = """\
env: simple_spread
env_config: {continuous_actions: true}
settings:
  num_env_steps_per_update: 50
search_space:
  tau: {grid: [0.01, 0.1]}
stop: {env_steps: 1000}
resources: {learner: shared}
"""


def write(folder, space, env_steps=200, **keys):
    """A sweep's file, and the file that counts the env steps of all of its trials."""
    count = folder / "steps"
    count.touch()
    data = {
        "env": "sweep_envs:CountedEnv",
        "env_config": {"file": str(count)},
        "settings": SETTINGS,
        "search_space": space,
        "stop": {"env_steps": env_steps},
        "checkpoint_every": 100,
        "resources": {"learner": "shared"},
        **keys,
    }
    file = folder / "my.yaml"
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    return file, count


def rows(out):
    with (Path(out) / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def name_of(out):
    return json.loads((Path(out) / "sweep.json").read_text())["shared_learner"]


def is_there(out):
    return any(a["name"] == actor_name(name_of(out)) for a in ray.util.list_named_actors(all_namespaces=True))


# ------------------------------------------------------------------------------------------ the file


# (what is changed in PLAIN, by what, line, key, text)
ERRORS = {
    "another word": (
        "shared}",
        "shard}",
        8,
        "resources.learner",
        "'shard' must be shared (one for all trials) or own. Did you",
    ),
    "no word": ("shared}", "true}", 8, "resources.learner", "True must be shared"),
    "a GPU beside it": (
        "shared}",
        "shared, num_gpus_per_learner: auto}",
        8,
        "resources.num_gpus_per_learner",
        "cannot stand beside `learner: shared`. Leave it out",
    ),
    "several Learners": ("shared}", "shared, num_learners: 1}", 8, "resources.num_learners", "`num_learners`=1 is not allowed"),
    "several Learners in the settings": (
        "update: 50",
        "update: 50\n  num_learners: 2",
        5,
        "settings.num_learners",
        "must be 0",
    ),
    "shards": (
        "update: 50",
        "update: 50\n  replay_buffer_config.num_shards: 2",
        5,
        "settings.replay_buffer_config.num_shards",
        "must be 0 with `shared_learner`",
    ),
    "shards of one point": (
        "tau:",
        "replay_buffer_config.num_shards: {grid: [0, 2]}\n  tau:",
        6,
        "search_space.replay_buffer_config.num_shards",
        "Set `learner: own` under `resources`",
    ),
    "graphs": (
        "update: 50",
        "update: 50\n  cuda_graph: true",
        5,
        "settings.cuda_graph",
        "Set `learner: own` under `resources`",
    ),
    "another Learner": ("env: simple", "algorithm: own_members:BringsLearner\nenv: simple", 1, "algorithm", "`learner_class`"),
    "another Learner among others": (
        "tau:",
        "algorithm: {grid: [MADDPG, 'own_members:BringsLearner']}\n  tau:",
        6,
        "search_space.algorithm",
        "`learner_class`",
    ),
    "the setting itself": ("update: 50", "update: 50\n  shared_learner: x", 5, "settings.shared_learner", "`learner: shared`"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_file_line_key_and_fix(name, tmp_path):
    old, new, line, key, text = ERRORS[name]
    assert old in PLAIN
    file = tmp_path / "my.yaml"
    file.write_text(PLAIN.replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(text)) as error:
        sweep = read_sweep(file)
        check_trials(sweep)
        check_resources(sweep)
    assert str(error.value).startswith(f"{file}:{line}: `{key}`: "), error.value
    assert "shared_learner=None" not in str(error.value)


def test_own_is_the_default(tmp_path):
    file = tmp_path / "my.yaml"
    for resources in ("", "resources: {learner: own}\n", "resources: {learner: own, num_gpus_per_learner: auto}\n"):
        file.write_text(PLAIN.replace("resources: {learner: shared}\n", resources))
        sweep = read_sweep(file)
        check_resources(sweep)
        assert not sweep.shares_learner and check_trials(sweep).shared_learner is None
        assert "shared_learner" not in param_space(sweep, 0.5)


def test_trials_get_the_name_and_no_gpu(ray_session, tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(PLAIN + "seeds: [0, 1, 2, 3, 4]\n")
    sweep = read_sweep(file)
    config = check_trials(sweep)
    assert make_config(sweep, {}).shared_learner is True
    found = place(sweep, config)
    # The Ray of the tests has four cores.
    assert found == Placement(0.0, 1, 4, shared_gpus=0)
    space = param_space(sweep, found.num_gpus_per_learner, "name")
    assert (space["shared_learner"], space["num_gpus_per_learner"]) == ("name", 0.0)


def test_names_differ_by_folder_and_start(tmp_path):
    folder = SweepFolder(tmp_path / "my sweep, größer")
    names = {folder.new_shared_learner() for _ in range(3)} | {
        SweepFolder(tmp_path / "x" / folder.path.name).new_shared_learner()
    }
    assert len(names) == 4 and all(re.fullmatch(r"my-sweep-gr-er-[0-9a-f]{8}", name) for name in names)


@pytest.mark.parametrize(("gpus", "where"), [(0, "the CPU"), (1, "a GPU"), (None, None)])
def test_the_first_line_says_that_they_share(gpus, where, tmp_path, capsys):
    file = tmp_path / "my.yaml"
    file.write_text(PLAIN)
    Screen().started(tmp_path, read_sweep(file), Placement(0.0, 1, 2, gpus))
    end = "on the CPU." if where is None else f"all in one shared Learner on {where}."
    assert capsys.readouterr().out.endswith(f": 2 points of 1,000 env steps, 2 at a time, {end}\n")


def test_the_live_table_has_their_slots():
    def trial(number, **result):
        fields = {"trial_id": f"t{number}", "custom_trial_name": None, "status": "RUNNING", "config": {}}
        return SimpleNamespace(**fields, last_result=result, evaluated_params={}, error_file=None)

    shared = [trial(0, shared_learner={"slot": 3}), trial(1)]
    head, _, *lines = MADDPGReporter()._body(shared, False).splitlines()
    assert head.split()[-1] == "slot" and [line.split()[-1] for line in lines] == ["3", "-"]
    assert "slot" not in MADDPGReporter()._body([trial(0), trial(1)], False)
    assert "slot" not in MADDPGReporter(metric_columns={STEPS: "steps"})._body(shared, False)


# ------------------------------------------------------------------------------------------ real sweeps


@pytest.fixture(scope="module")
def grid(ray_session, tmp_path_factory):
    """Two values of a bonus, two seeds each: in a shared Learner, and with Learners of their own."""
    folders = {}
    for learner in ("shared", "own"):
        folder = tmp_path_factory.mktemp(learner)
        file, _ = write(
            folder, {"env_config.bonus": {"grid": [0.0, 5.0]}}, seeds=[0, 1], max_concurrent=2, resources={"learner": learner}
        )
        assert main(["sweep", str(file), "--out", str(folder / "out")]) == 0
        folders[learner] = folder / "out"
    return folders


def test_all_is_as_with_learners_of_their_own(grid):
    shared, own = rows(grid["shared"]), rows(grid["own"])
    assert [list(row) for row in shared] == [list(row) for row in own]
    for key in ("rank", "status", "env_config.bonus", "seed", "env_steps", "error"):
        assert [row[key] for row in shared] == [row[key] for row in own]
    for one, other in zip(shared, own, strict=True):
        # What a trial learns does not depend on who learns beside it.
        assert float(one["final"]) == pytest.approx(float(other["final"]), rel=1e-3)
        last = read_results(grid["shared"] / one["trial"] / "result.json")[-1]
        assert last["shared_learner"]["slots_per_pass_mean"] >= 1 and last["shared_learner"]["wait_ms_mean"] >= 0
    results = [read_results(grid["shared"] / row["trial"] / "result.json") for row in shared]
    assert len({result[-1]["shared_learner"]["slot"] for result in results}) == 4
    assert all((grid["shared"] / name).exists() for name in ("curves.png", "map.png", "best.json", "best_checkpoint"))


def test_the_shared_learner_is_gone_at_the_end(grid):
    assert not is_there(grid["shared"])


def test_its_best_checkpoint_needs_no_shared_learner(grid, capsys):
    assert main(["evaluate", str(grid["shared"]), "--episodes", "3", "--json"]) == 0
    assert 30 < json.loads(capsys.readouterr().out)["team_return"]["mean"] < 50
    assert not is_there(grid["shared"])


def test_curves_of_trials_are_one_group_whoever_learned_beside_them(grid):
    """Each sweep has another name for its shared Learner, which is no setting by which runs differ."""
    shared, own = (find_runs([grid[learner]]) for learner in ("shared", "own"))
    here, there = ({key for run in runs for key in run.settings} for runs in (shared, own))
    assert here == there and "shared_learner" not in here
    assert [len(group.runs) for group in group_runs(shared)] == [2, 2]


def test_a_finished_sweep_goes_on_with_nothing(grid):
    before = {file: file.read_bytes() for file in grid["shared"].rglob("result.json")}
    assert main(["sweep", str(grid["shared"] / "sweep.yaml"), "--out", str(grid["shared"]), "--resume"]) == 0
    assert {file: file.read_bytes() for file in before} == before and not is_there(grid["shared"])


def test_asha_stops_the_worse_ones(ray_session, tmp_path):
    scheduler = {"type": "asha", "grace_env_steps": 100, "reduction_factor": 2}
    space = {"env_config.bonus": {"grid": [9.0, 2.0, 1.0]}}
    file, count = write(tmp_path, space, env_steps=300, scheduler=scheduler, max_concurrent=1)
    summary = run_sweep(SweepOptions(str(file), str(tmp_path / "out")))
    assert [(t.values["env_config.bonus"], t.status, t.env_steps) for t in summary.trials] == [
        (9.0, "finished", 300),
        (2.0, "stopped early", 100),
        (1.0, "stopped early", 100),
    ]
    assert count.stat().st_size == 500 and not is_there(tmp_path / "out")


def test_pbt_goes_on_with_the_better_run_in_its_own_slot(ray_session, tmp_path):
    space = {"tau": {"loguniform": [1e-3, 0.5]}, "actor_lr": {"loguniform": [1e-4, 1e-2]}}
    scheduler = {"type": "pbt", "perturb_every": 100, "quantile_fraction": 0.5}
    file, count = write(tmp_path, space, 300, scheduler=scheduler, search="random", seeds=[0, 1])
    out = tmp_path / "out"
    assert main(["sweep", str(file), "--out", str(out)]) == 0
    assert len((out / "pbt_global.txt").read_text().splitlines()) >= 2
    for row in rows(out):
        results = read_results(out / row["trial"] / "result.json")
        assert [r[STEPS] for r in results] == [100, 200, 300]
        assert [r["replay_buffer"]["num_rows"] for r in results] == [100, 200, 300]
        assert [r["learners"]["__all_modules__"]["num_updates_lifetime"] for r in results] == [3, 8, 13]
    assert count.stat().st_size == 2 * 300 and not is_there(out)


@pytest.mark.slow
def test_optuna_suggests_into_free_slots(ray_session, tmp_path):
    space = {"tau": {"loguniform": [1e-3, 0.5]}}
    file, _ = write(tmp_path, space, 100, search={"type": "optuna", "seed": 1}, num_samples=3, max_concurrent=1)
    assert main(["sweep", str(file), "--out", str(tmp_path / "out")]) == 0
    assert [row["status"] for row in rows(tmp_path / "out")] == ["finished"] * 3


@pytest.mark.slow
def test_members_of_the_family_share(ray_session, tmp_path):
    file, _ = write(tmp_path, {"algorithm": {"grid": ["MADDPG", "MATD3"]}}, max_concurrent=2)
    assert main(["sweep", str(file), "--out", str(tmp_path / "out")]) == 0
    assert {row["algorithm"]: row["status"] for row in rows(tmp_path / "out")} == {"MADDPG": "finished", "MATD3": "finished"}


def test_a_trial_that_fails_is_tried_again_and_touches_no_other(ray_session, tmp_path, capsys):
    """From its last checkpoint; each time its environment holds for 120 env steps, which is enough to get further."""
    file, count = write(tmp_path, {"env_config.fail_after": {"grid": [120, 10_000]}}, 300, max_concurrent=2)
    assert main(["sweep", str(file), "--out", str(tmp_path / "out")]) == 0
    table = rows(tmp_path / "out")
    assert [(row["status"], row["env_steps"]) for row in table] == [("finished", "300")] * 2
    # To rounding: in passes of both trials sums are added up in another order.
    assert float(table[0]["final"]) == pytest.approx(float(table[1]["final"]), rel=1e-4)
    # Up to the step that fails from the start, from 100 and from 200 env steps.
    assert count.stat().st_size == 300 + 121 + 121 + 100


class KillsTheLearner(Screen):
    """Kills the shared Learner once, when some env steps are made."""

    def __init__(self, count, env_steps):
        self.count, self.env_steps = count, env_steps

    def started(self, folder, sweep, placement):
        import threading
        import time

        def kill():
            while self.count.stat().st_size < self.env_steps:
                time.sleep(0.02)
            ray.kill(ray.get_actor(actor_name(name_of(folder)), namespace=NAMESPACE))

        threading.Thread(target=kill, daemon=True).start()


def test_trials_go_on_in_a_new_one_where_the_shared_learner_dies(ray_session, tmp_path):
    file, count = write(tmp_path, {"lr": {"grid": [0.001, 0.002]}}, 1000, max_concurrent=2)
    summary = run_sweep(SweepOptions(str(file), str(tmp_path / "out")), KillsTheLearner(count, 900))
    assert [(trial.status, trial.env_steps) for trial in summary.trials] == [("finished", 1000)] * 2
    # Something had to be done twice: at most an interval of checkpoints and what was sampled meanwhile.
    assert 2 * 1000 < count.stat().st_size <= 2 * (1000 + 200)
    assert not is_there(summary.folder)


# ------------------------------------------------------------------------------------------ the driver stops


@pytest.mark.slow
@pytest.mark.ray
def test_stopped_and_killed_in_turn_it_goes_on(tmp_path):
    file, count = write(
        tmp_path,
        {"lr": {"grid": [0.001, 0.002]}},
        2000,
        seeds=[0, 1],
        settings={**SETTINGS, "num_env_steps_per_update": 10},
        resources={"learner": "shared", "cpus": 2},
    )
    out, whole = tmp_path / "out", 4 * 2000
    first = Driver(file, out)
    assert first.stop_when(count, 0.25 * whole, signal.SIGINT) == 130, first.log.read_text()
    assert "2 at a time, all in one shared Learner on the CPU." in first.log.read_text()
    name = name_of(out)
    second = Driver(file, out, "--resume")
    assert second.stop_when(count, 0.6 * whole, signal.SIGKILL) == -signal.SIGKILL
    last = Driver(file, out, "--resume", "--out", str(out))
    assert last.process.wait() == 0, last.log.read_text()
    assert whole <= count.stat().st_size <= 1.15 * whole
    assert [row["status"] for row in rows(out)] == ["finished"] * 4 and name_of(out) == name
    # The last driver, and so its Ray, has ended.
    assert not any(f"{actor_name(name)}".encode() in command for command in commands())


def commands():
    """Command lines of all processes."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield (process / "cmdline").read_bytes()
        except OSError:
            continue


@pytest.mark.slow
def test_the_page_runs(ray_session, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # results go to ~/ray_results
    page = (ROOT / "docs" / "shared_learner.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.S)
    exec(block.replace("ray.init()\n", ""), {})
    assert SLOT in page and os.path.isfile(ROOT / "tune_configs" / "population.yaml")
