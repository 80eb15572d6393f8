"""`rllib-maddpg sweep` from YAML to table, best checkpoint and pictures, with real trials."""

import csv
import json
import pickle
import shutil
import time
from pathlib import Path

import pytest
import sweep_envs
import yaml
from population import Member
from ray import tune
from ray.train._internal.storage import StorageContext
from ray.tune.experiment import Trial
from sweep_settings import SETTINGS

from rllib_maddpg.cli.program import main
from rllib_maddpg.sweeps.metrics import known_metrics
from rllib_maddpg.sweeps.ranking import metric_of, read_results
from rllib_maddpg.sweeps.resources import auto_share, place
from rllib_maddpg.sweeps.result_file import ResultJson
from rllib_maddpg.sweeps.run import SweepOptions, run_sweep
from rllib_maddpg.sweeps.schema import read_sweep
from rllib_maddpg.sweeps.search import make_scheduler
from rllib_maddpg.sweeps.snapshots import keep_snapshot, newest_state, repair_snapshot
from rllib_maddpg.sweeps.trial_config import check_trials

RETURN, STEPS = "env_runners/episode_return_mean", "num_env_steps_sampled_lifetime"


def write(folder, space, env_steps=200, settings=None, **keys):
    """A sweep's file in `folder`, and the file that counts the env steps of all of its trials."""
    count = folder / "steps"
    count.touch()
    data = {
        "env": "sweep_envs:CountedEnv",
        "env_config": {"file": str(count)},
        "settings": {**SETTINGS, **(settings or {})},
        "search_space": space,
        "stop": {"env_steps": env_steps},
        "checkpoint_every": 100,
        **keys,
    }
    file = folder / "my.yaml"
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    return file, count


def rows(out):
    with (Path(out) / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def returns(out, trial):
    """The column of the trial's own table."""
    with (Path(out) / trial / "progress.csv").open(newline="") as file:
        return [float(row[RETURN]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def grid(ray_session, tmp_path_factory):
    """A finished sweep: two values of a bonus on the reward, two seeds each."""
    folder = tmp_path_factory.mktemp("grid")
    file, count = write(folder, {"env_config.bonus": {"grid": [0.0, 5.0]}}, seeds=[0, 1], max_concurrent=1)
    out = folder / "out"
    assert main(["sweep", str(file), "--out", str(out)]) == 0
    return file, count, out


def test_table_agrees_with_the_trials(grid):
    _, count, out = grid
    table = rows(out)
    assert len(table) == 4
    assert [(row["rank"], row["env_config.bonus"]) for row in table] == [("1", "5.0")] * 2 + [("2", "0.0")] * 2
    for row in table:
        curve = returns(out, row["trial"])
        assert float(row["final"]) == curve[-1]
        assert float(row["best"]) == max(curve)
        assert (row["status"], row["env_steps"], row["error"]) == ("finished", "200", "")
        # Two agents, five steps: the bonus alone is worth 50.
        assert abs(float(row["final"]) - 10 * float(row["env_config.bonus"])) < 15
        assert (out / row["checkpoint"] / "rllib_checkpoint.json").is_file()
    for pair in (table[:2], table[2:]):
        assert {row["seed"] for row in pair} == {"0", "1"}
        mean = sum(float(row["final"]) for row in pair) / 2
        assert [float(row["mean_over_seeds"]) for row in pair] == pytest.approx([mean] * 2)
    assert count.stat().st_size == 4 * 200


def test_best_is_the_better_seed_of_the_best_point(grid, capsys):
    _, _, out = grid
    best = json.loads((out / "best.json").read_text())
    winner = max(rows(out)[:2], key=lambda row: float(row["final"]))
    assert best["values"] == {"env_config.bonus": 5.0}
    assert (best["trial"], str(best["trial_seed"])) == (winner["trial"], winner["seed"])
    assert best["seeds"] == {row["seed"]: float(row["final"]) for row in rows(out)[:2]}
    original, copy = out / winner["checkpoint"], out / "best_checkpoint"
    for file in (f for f in original.rglob("*") if f.is_file()):
        assert (copy / file.relative_to(original)).read_bytes() == file.read_bytes()
    # The folder of the sweep, the best checkpoint, and a trial's folder.
    for folder in (out, copy, out / winner["trial"]):
        assert main(["evaluate", str(folder), "--episodes", "3", "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert 30 < result["team_return"]["mean"] < 50


def test_results_have_all_metrics_that_are_allowed(grid):
    file, _, out = grid
    config = check_trials(read_sweep(file))
    last = read_results(out / rows(out)[0]["trial"] / "result.json")[-1]
    names = known_metrics(config)
    assert "env_runners/agent_episode_returns_mean/left" in names and "learners/right/critic_loss" in names
    assert [name for name in names if metric_of(last, name) is None] == []


def test_pictures_are_drawn(grid):
    from PIL import Image

    for name in ("curves.png", "map.png"):
        with Image.open(grid[2] / name) as image:
            assert image.width > 500 and len(image.convert("L").getcolors()) > 20


def test_finished_sweep_is_not_begun_again(grid, capsys):
    file, count, out = grid
    before, counted = {f: f.read_bytes() for f in sorted(out.rglob("result.json"))}, count.stat().st_size
    assert main(["sweep", str(file), "--out", str(out)]) == 2
    assert "holds a sweep already" in capsys.readouterr().err
    assert main(["sweep", str(file), "--out", str(out), "--resume"]) == 0
    assert count.stat().st_size == counted
    assert {f: f.read_bytes() for f in sorted(out.rglob("result.json"))} == before
    assert len(rows(out)) == 4


def test_same_settings_give_the_same_run_in_a_used_process(ray_session, tmp_path):
    """Trials share processes: nothing of one may show in the next."""
    # Huber's delta is of no account for the squared error.
    file, _ = write(tmp_path, {"huber_delta": {"grid": [1.0, 2.0]}}, max_concurrent=1, seeds=[5])
    summary = run_sweep(SweepOptions(str(file), str(tmp_path / "out")))
    first, second = (read_results(summary.folder / trial.name / "result.json") for trial in summary.trials)
    assert {result["pid"] for result in first + second} == {first[0]["pid"]}
    assert [trial.curve for trial in summary.trials] == [summary.trials[0].curve] * 2
    for one, other in zip(first, second, strict=True):
        assert one["learners"]["left"]["critic_loss"] == other["learners"]["left"]["critic_loss"]


def test_resume_of_another_sweep_is_refused(grid, tmp_path, capsys):
    file, _, out = grid
    other = tmp_path / "other.yaml"
    other.write_text(file.read_text().replace("env_steps: 200", "env_steps: 300"))
    assert main(["sweep", str(other), "--out", str(out), "--resume"]) == 2
    error = capsys.readouterr().err
    line = 1 + other.read_text().splitlines().index("stop:")
    assert f"{other}:{line}: `stop`: --resume" in error and "{'env_steps': 200}, not {'env_steps': 300}" in error


@pytest.mark.parametrize("case", ["no experiment", "not empty", "a file", "not writable", "disk full"])
def test_folders_that_cannot_be_used(case, ray_session, tmp_path, capsys, monkeypatch):
    file, count = write(tmp_path, {"tau": {"grid": [0.1, 0.2]}})
    out, more = tmp_path / "out", []
    if case == "no experiment":
        more, text = ["--resume"], "has no experiment to go on with"
    elif case == "not empty":
        out, text = tmp_path, "is not empty, and no sweep made it"
    elif case == "a file":
        out, text = file, "is a file"
    elif case == "not writable":
        out, text = Path("/proc/sweep/out"), "cannot be written to"
    else:
        full = shutil.disk_usage(tmp_path)._replace(free=10**6)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
        text = "only 1 MB of the disk are free"
    assert main(["sweep", str(file), "--out", str(out), *more]) == 2
    assert text in capsys.readouterr().err
    assert count.stat().st_size == 0


@pytest.mark.parametrize(
    ("resources", "text"),
    [
        ({"num_env_runners": 8}, "my.yaml:22: `resources.num_env_runners`: a trial needs 9 CPUs .* but Ray has 4"),
        (
            {"num_gpus_per_learner": 0.5},
            "my.yaml:22: `resources.num_gpus_per_learner`: 0.5 .* but Ray has 0 GPUs. Write `auto`",
        ),
    ],
)
def test_more_than_the_machine_has_is_refused(resources, text, ray_session, tmp_path):
    file, count = write(tmp_path, {"tau": {"grid": [0.1, 0.2]}}, resources=resources)
    with pytest.raises(ValueError, match=text):
        run_sweep(SweepOptions(str(file), str(tmp_path / "out")))
    assert count.stat().st_size == 0 and not (tmp_path / "out").exists()


def test_auto_is_the_cpu_where_there_is_no_gpu(ray_session, tmp_path):
    file, _ = write(tmp_path, {"tau": {"grid": [0.1, 0.2]}}, seeds=[0, 1, 2], resources={"num_gpus_per_learner": "auto"})
    sweep = read_sweep(file)
    found = place(sweep, check_trials(sweep))
    assert (found.num_gpus_per_learner, found.cpus, found.concurrent) == (0.0, 1, 4)


@pytest.mark.parametrize(
    ("gpus", "trials", "learners", "share"),
    [(1, 1, 1, 1.0), (2, 1, 1, 1.0), (1, 3, 1, 0.3333), (2, 7, 1, 0.25), (1, 16, 1, 0.0625), (2, 2, 2, 0.5), (4, 2, 2, 1.0)],
)
def test_shares_of_a_gpu(gpus, trials, learners, share):
    assert auto_share(gpus, trials, learners) == share


def test_failing_trial_is_told_and_the_others_go_on(ray_session, tmp_path, capsys):
    file, count = write(tmp_path, {"env_config.fail_after": {"grid": [120, 10_000]}}, max_concurrent=1)
    out = tmp_path / "out"
    assert main(["sweep", str(file), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert "Trial failed at 100 env steps: env_config.fail_after=120, seed=0: " in error and "the game is broken" in error
    good, bad = rows(out)
    assert (good["status"], good["env_steps"], good["error"]) == ("finished", "200", "")
    assert (bad["status"], bad["env_steps"]) == ("failed", "100")
    assert "the game is broken" in bad["error"]
    # Once more: it goes on from its last checkpoint; the env is a new one, and holds until the end.
    counted = count.stat().st_size
    assert main(["sweep", str(file), "--out", str(out), "--resume"]) == 0
    assert count.stat().st_size == counted + 100
    assert [row["status"] for row in rows(out)] == ["finished"] * 2


def test_asha_stops_the_worse_runs(ray_session, tmp_path):
    scheduler = {"type": "asha", "grace_env_steps": 100, "reduction_factor": 2}
    space = {"env_config.bonus": {"grid": [9.0, 2.0, 1.0]}}
    file, count = write(tmp_path, space, env_steps=300, scheduler=scheduler, max_concurrent=1)
    summary = run_sweep(SweepOptions(str(file), str(tmp_path / "out")))
    assert [(t.values["env_config.bonus"], t.status, t.env_steps) for t in summary.trials] == [
        (9.0, "finished", 300),
        (2.0, "stopped early", 100),
        (1.0, "stopped early", 100),
    ]
    assert summary.is_complete and count.stat().st_size == 500


def test_random_points_are_the_same_for_all_seeds(ray_session, tmp_path):
    file, _ = write(tmp_path, {"tau": {"loguniform": [1e-3, 0.5]}}, 100, search="random", seeds=[3, 4], max_concurrent=1)
    summary = run_sweep(SweepOptions(str(file), str(tmp_path / "out"), num_samples=2))
    assert [sorted(trial.seed for trial in point.trials) for point in summary.points] == [[3, 4], [3, 4]]
    taus = [point.values["tau"] for point in summary.points]
    assert len(set(taus)) == 2 and all(1e-3 <= tau <= 0.5 for tau in taus)


def test_optuna_is_told_the_mean_over_seeds(ray_session, tmp_path):
    space = {"tau": {"loguniform": [1e-3, 0.5]}, "env_config.bonus": {"choice": [0.0, 1.0]}}
    file, _ = write(tmp_path, space, 100, search={"type": "optuna", "seed": 1}, num_samples=3, seeds=[0, 1], max_concurrent=1)
    out = tmp_path / "out"
    assert main(["sweep", str(file), "--out", str(out)]) == 0
    table = rows(out)
    points = {}
    for row in table:
        points.setdefault(float(row["tau"]), []).append(row)
    assert len(points) == 3 and all({row["seed"] for row in pair} == {"0", "1"} for pair in points.values())
    state = pickle.loads(max(out.glob("searcher-state-*.pkl")).read_bytes())
    told = {trial.params["tau"]: trial.value for trial in state["_ot_study"].trials}
    assert told == {tau: pytest.approx(sum(float(row["final"]) for row in pair) / 2) for tau, pair in points.items()}


def test_pbt_goes_on_with_the_rows_of_the_better_run(ray_session, tmp_path):
    space = {
        "tau": {"loguniform": [1e-3, 0.5]},
        "actor_lr": {"loguniform": [1e-4, 1e-2]},
        "critic_lr": {"choice": [1e-3, 1e-2]},
    }
    scheduler = {"type": "pbt", "perturb_every": 100, "quantile_fraction": 0.5}
    file, count = write(tmp_path, space, 300, scheduler=scheduler, search="random", seeds=[0, 1])
    out = tmp_path / "out"
    assert main(["sweep", str(file), "--out", str(out)]) == 0
    exploits = [json.loads(line) for line in (out / "pbt_global.txt").read_text().splitlines()]
    assert len(exploits) >= 2  # at 100 and at 200 env steps
    table = rows(out)
    assert [row["rank"] for row in table] == ["1", "2"]  # each member for itself
    for row in table:
        results = read_results(out / row["trial"] / "result.json")
        assert [r[STEPS] for r in results] == [100, 200, 300]
        assert len(returns(out, row["trial"])) == 3
        # No member begins with an empty buffer, whoever's rows they are.
        assert [r["replay_buffer"]["num_rows"] for r in results] == [100, 200, 300]
        assert [r["learners"]["__all_modules__"]["num_updates_lifetime"] for r in results] == [3, 8, 13]
        assert 1e-3 <= float(row["tau"]) <= 0.5 and 1e-4 <= float(row["actor_lr"]) <= 1e-2
    assert count.stat().st_size == 2 * 300
    # What was mutated is what the trial trains with.
    *_, old, new = exploits[-1]
    assert any(new[key] != old[key] for key in ("tau", "actor_lr", "critic_lr"))


def test_rows_after_the_checkpoint_are_dropped(tmp_path):
    lines = [{STEPS: n, "value": v} for n, v in [(100, 1), (200, 2), (300, 3), (200, 4), (300, 5)]]
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "result.json").write_text(text.replace('"value": 3}', '"val'))  # a line cut short
    assert [(r[STEPS], r["value"]) for r in read_results(tmp_path / "result.json")] == [(100, 1), (200, 4), (300, 5)]


@pytest.mark.parametrize("better", [0, 1])
def test_a_population_waits_for_a_member_that_is_still_saving(better, ray_session, tmp_path):
    """Whoever clones a state begins with just that, also late, and trains to the end."""
    scheduler = {"type": "pbt", "perturb_every": 100, "quantile_fraction": 0.5}
    file, _ = write(tmp_path, {"tau": {"loguniform": [1e-3, 0.5]}}, 300, scheduler=scheduler, search="random", seeds=[0, 1])
    tuner = tune.Tuner(
        Member,
        param_space={"tau": tune.loguniform(1e-3, 0.5), "better": better, "folder": str(tmp_path)},
        tune_config=tune.TuneConfig(
            metric=RETURN, mode="max", num_samples=2, scheduler=make_scheduler(read_sweep(file)), reuse_actors=True
        ),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path / "tune"),
            stop={STEPS: 300},
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            callbacks=[ResultJson()],
            verbose=0,
        ),
    )
    for trial in tuner.fit()._experiment_analysis.trials:
        results = read_results(Path(trial.storage.trial_fs_path) / "result.json")
        assert [result[STEPS] for result in results] == [50, 100, 150, 200, 250, 300]


def test_rows_of_a_trial_that_pauses_are_not_taken_from_a_snapshot(ray_session, tmp_path):
    """A snapshot that is being written leaves an empty file for a moment. What another driver has left is taken, though."""

    def begin():
        storage = StorageContext(str(tmp_path), experiment_dir_name="out")
        # A trial to be restored has a checkpoint; without, nothing would be taken.
        options = {"trial_id": "1", "trial_dirname_creator": lambda trial: "trial", "restore_path": str(tmp_path)}
        trial = Trial("MADDPG", stub=True, storage=storage, **options)
        trial.init_local_path()
        return trial, ResultJson()

    def go_on(trial, logger, steps):
        logger.on_trial_start(0, [trial], trial)
        logger.on_trial_result(0, [trial], trial, {STEPS: steps})
        return [result[STEPS] for result in read_results(Path(trial.local_path, "result.json"))]

    stored = tmp_path / "out" / "trial" / "result.json"
    trial, first = begin()
    go_on(trial, first, 100)
    stored.parent.mkdir(parents=True)
    stored.touch()
    assert go_on(trial, first, 200) == [100, 200]

    shutil.copyfile(Path(trial.local_path, "result.json"), stored)
    time.sleep(1.1)  # Ray names the folder of a driver's own files by the second
    trial, second = begin()
    assert go_on(trial, second, 300) == [100, 200, 300]


def test_snapshot_cut_short_is_mended(tmp_path):
    state = tmp_path / "experiment_state-2026-01-01.json"
    state.write_text('{"trial_data": []}')
    (tmp_path / "basic-variant-state-2026-01-01.json").write_text("{}")
    keep_snapshot(tmp_path)
    state.write_text('{"trial_da')
    keep_snapshot(tmp_path)
    repair_snapshot(tmp_path)
    assert newest_state(tmp_path).read_text() == '{"trial_data": []}'
    shutil.rmtree(tmp_path / ".last_snapshot")
    state.write_text('{"trial_da')
    with pytest.raises(ValueError, match="was cut short"):
        repair_snapshot(tmp_path)


def test_game_counts_its_steps(tmp_path):
    env = sweep_envs.CountedEnv({"file": str(tmp_path / "steps"), "fail_after": 2})
    env.reset(seed=0)
    for _ in range(2):
        env.step({agent: [0.0] for agent in env.agents})
    with pytest.raises(RuntimeError, match="broken"):
        env.step({agent: [0.0] for agent in env.agents})
    assert (tmp_path / "steps").stat().st_size == 3
