"""What people watch: the table of a Tune run, the tags in its TensorBoard events, and learning curves of its trials."""

import json
import math
import os
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray import tune
from ray.tune.experiment import Trial
from tensorboard_events import read_scalars

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.cli.program import main
from rllib_maddpg.cli.screen import progress_text
from rllib_maddpg.plotting.curves import find_runs, group_runs, read_values
from rllib_maddpg.results.progress import Progress
from rllib_maddpg.runs.reporting import NEW_OUTPUT, MADDPGReporter

TEAM = "env_runners/episode_return_mean"
AGENTS = ("adversary_0", "agent_0", "agent_1")


class KeptReporter(MADDPGReporter):
    """Keeps what it prints."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.printed = []

    def _print(self, msg):
        self.printed.append(msg)


@pytest.fixture(scope="module")
def experiment(ray_session, tmp_path_factory):
    """Two learning rates with two seeds each, three iterations of 200 env steps; and the tables."""
    config = (
        MADDPGConfig()
        .environment("simple_adversary")
        .env_runners(num_envs_per_env_runner=4)
        .training(
            lr=tune.grid_search([0.01, 0.001]),
            train_batch_size_per_learner=32,
            num_steps_sampled_before_learning_starts=50,
            replay_buffer_config={"capacity": 2000},
        )
        .rl_module(model_config={"fcnet_hiddens": [16, 16]})
        .reporting(min_sample_timesteps_per_iteration=200)
        .debugging(seed=tune.grid_search([1, 2]))
    )
    reporter = KeptReporter(max_report_frequency=1)
    analysis = tune.run(
        "MADDPG",
        config=config.to_dict(),
        stop={"training_iteration": 3},
        storage_path=str(tmp_path_factory.mktemp("tune")),
        name="looks",
        metric=TEAM,
        mode="max",
        progress_reporter=reporter,
    )
    return analysis, reporter.printed


def results_of(trial):
    with open(os.path.join(trial.local_path, "result.json")) as f:
        return [json.loads(line) for line in f]


# ------------------------------------------------------------------------------------------ the table


def test_the_last_table_has_a_row_of_each_trial_with_its_numbers(experiment, capsys):
    analysis, printed = experiment
    head, *lines = printed[-1].splitlines()
    assert re.fullmatch(r"== 4 trials after \d+:\d\d min: 4 TERMINATED ==", head)
    best = max(analysis.trials, key=lambda t: t.last_result["env_runners"]["episode_return_mean"])
    value = best.last_result["env_runners"]["episode_return_mean"]
    settings = f"(lr={best.config['lr']}, seed={best.config['seed']})"
    assert f"Best return: {value:,.2f}, trial {best.trial_id} {settings}" in lines
    table = lines[next(n for n, line in enumerate(lines) if line.startswith("trial ")) :]
    columns = ["trial", "status", "lr", "seed", "return", *AGENTS, "env steps", "steps/s", "fill", "updates"]
    assert re.split(r"\s{2,}", table[0]) == columns
    assert max(map(len, table)) <= 120
    rows = {row.split()[0]: row.split() for row in table[2:6]}
    for trial in analysis.trials:
        r = trial.last_result
        sampled = r["env_runners"]["agent_episode_returns_mean"]
        returns = [r["env_runners"]["episode_return_mean"], *(sampled[agent] for agent in AGENTS)]
        row = rows[trial.trial_id]
        assert row[1:4] == ["TERMINATED", str(trial.config["lr"]), str(trial.config["seed"])]
        assert row[4:8] == [f"{value:,.2f}" for value in returns]
        assert (row[8], row[10], row[11]) == ("600", "30%", "6")
        assert float(row[9].replace(",", "")) > 0


def test_tune_is_made_to_listen_and_prints_no_whole_results(experiment):
    _, printed = experiment
    assert os.environ[NEW_OUTPUT] == "0"
    assert len(printed) >= 2
    assert "PENDING" in printed[0] or "RUNNING" in printed[0]
    assert not any("num_module_steps_trained" in text for text in printed)


def test_a_restored_reporter_is_heard_too(monkeypatch):
    reporter = pickle.loads(pickle.dumps(MADDPGReporter(metric=TEAM, mode="max", parameter_columns=["lr"])))
    monkeypatch.delenv(NEW_OUTPUT)
    pickle.loads(pickle.dumps(reporter))
    assert os.environ[NEW_OUTPUT] == "0"
    # Tune gives it the metric once more, which `CLIReporter` refuses.
    reporter.set_search_properties(TEAM, "max")
    with pytest.raises(ValueError, match="`metric` or `mode`"):
        reporter.set_search_properties("other", "min")


def test_a_wish_for_tunes_newer_output_is_respected(monkeypatch):
    monkeypatch.setenv(NEW_OUTPUT, "1")
    MADDPGReporter()
    assert os.environ[NEW_OUTPUT] == "1"


def trial(number, status="RUNNING", agents=None, error_file=None, **config):
    result = {}
    if agents:
        returns = {"episode_return_mean": sum(agents.values()), "agent_episode_returns_mean": agents}
        result = {"env_runners": returns, "num_env_steps_sampled_lifetime": 1234.0, "replay_buffer": {"fill": 0.125}}
    return SimpleNamespace(
        trial_id=f"t{number}",
        custom_trial_name=None,
        status=status,
        last_result=result,
        config=config,
        evaluated_params=config,
        error_file=error_file,
        run_metadata=SimpleNamespace(num_failures=1),
    )


def body_of(reporter, trials, done=False):
    return reporter._body(trials, done).splitlines()


def test_many_agents_share_two_columns_and_one_agent_has_none():
    many = body_of(MADDPGReporter(), [trial(0, agents={f"a{n}": float(n) for n in range(5)})])
    assert re.split(r"\s{2,}", many[0]) == [
        *["trial", "status", "return", "lowest agent", "highest agent"],
        *["env steps", "steps/s", "fill", "updates"],
    ]
    assert many[2].split() == ["t0", "RUNNING", "10.00", "0.00", "4.00", "1,234", "-", "12%", "-"]
    one = body_of(MADDPGReporter(), [trial(0, agents={"agent_0": 3.0})])
    assert one[0].split() == ["trial", "status", "return", "env", "steps", "steps/s", "fill", "updates"]


def test_rows_are_sorted_cut_and_counted_and_errors_named():
    trials = [
        trial(0, Trial.TERMINATED, {"a": 1.0, "b": 1.0}, lr=0.1),
        trial(1, Trial.TERMINATED, {"a": 5.0, "b": 0.0}, lr=0.2),
        trial(2, Trial.PENDING, lr=0.3),
        trial(3, Trial.ERROR, error_file="/x/error.txt", lr=0.4),
        trial(4, Trial.TERMINATED, lr=0.5),
    ]
    reporter = MADDPGReporter(metric=TEAM, mode="max", sort_by_metric=True, max_progress_rows=3)
    lines = body_of(reporter, trials)
    assert lines[0] == "Best return: 5.00, trial t1 (lr=0.2)"
    assert [line.split()[0] for line in lines[3:6]] == ["t3", "t1", "t0"]
    assert lines[6:] == ["... and 2 more: 1 TERMINATED, 1 PENDING", "Trial t3 failed (1 failure(s)): /x/error.txt"]
    # All of them at the end; the one without a result comes after those with one.
    assert [line.split()[0] for line in body_of(reporter, trials, done=True)[3:8]] == ["t3", "t1", "t0", "t4", "t2"]


def test_columns_can_be_chosen_and_long_names_are_short():
    config = {"train_batch_size_per_learner": 32, "replay_buffer_config": {"capacity": 7}}
    row = trial(0, agents={"a": 1.0, "b": 2.0}, **config)
    row.evaluated_params = {"train_batch_size_per_learner": 32, "replay_buffer_config/capacity": 7}
    assert body_of(MADDPGReporter(), [row])[0].split()[:4] == ["trial", "status", "capacity", "batch"]
    chosen = MADDPGReporter(metric_columns={TEAM: "sum"}, parameter_columns={"train_batch_size_per_learner": "rows"})
    head, _, line = body_of(chosen, [row])
    assert head.split() == ["trial", "status", "rows", "sum"] and line.split() == ["t0", "RUNNING", "32", "3.00"]


def test_nothing_new_is_not_printed_twice():
    reporter = KeptReporter()
    for done in (False, False, True):
        reporter.report([trial(0, agents={"a": 1.0})], done, "Using FIFO scheduling algorithm.", "1/2 CPUs")
    assert len(reporter.printed) == 2
    assert "FIFO" not in reporter.printed[0] and "1/2 CPUs" in reporter.printed[0]


# ------------------------------------------------------------------------------------------ one run in the terminal


def test_the_line_of_a_run_has_the_same_facts_and_fits():
    result = {
        "num_env_steps_sampled_lifetime": 45_000,
        "env_runners": {"episode_return_mean": -5.25, "agent_episode_returns_mean": {"b": 4.75, "a": -10.0}},
        "replay_buffer": {"fill": 0.45},
        "learners": {"__all_modules__": {"num_updates_lifetime": 450}},
    }
    whole = progress_text(Progress.of(result), 100_000, 1234.4, "1:20")
    assert whole == (
        "45,000 / 100,000 env steps   return -5.25 (a -10.0, b 4.8)   1,234 steps/s   replay 45% full   450 updates   ETA 1:20"
    )
    lengths = {room: len(progress_text(Progress.of(result), 100_000, 1234.4, "1:20", room)) for room in (110, 95, 70)}
    assert all(length <= room for room, length in lengths.items())
    assert progress_text(Progress.of(result), 100_000, 1234.4, "1:20", 70) == (
        "45,000 / 100,000 env steps   return -5.25   1,234 steps/s   ETA 1:20"
    )
    assert math.isnan(Progress.of({}).team)


# ------------------------------------------------------------------------------------------ TensorBoard


def test_tensorboard_has_each_agent_and_each_module_over_env_steps(experiment):
    analysis, _ = experiment
    folder = analysis.trials[0].local_path
    (file,) = (os.path.join(folder, name) for name in os.listdir(folder) if name.startswith("events.out.tfevents"))
    scalars = read_scalars(Path(file))
    results = results_of(analysis.trials[0])
    assert [r["timesteps_total"] for r in results] == [200, 400, 600]
    for agent in AGENTS:
        returns = {r["timesteps_total"]: r["env_runners"]["agent_episode_returns_mean"][agent] for r in results}
        assert scalars[f"ray/tune/env_runners/agent_episode_returns_mean/{agent}"] == pytest.approx(returns, rel=1e-5)
        for loss in ("critic_loss", "actor_loss"):
            losses = {r["timesteps_total"]: r["learners"][agent][loss] for r in results if agent in r.get("learners", {})}
            assert len(losses) == 3
            assert scalars[f"ray/tune/learners/{agent}/{loss}"] == pytest.approx(losses, rel=1e-5)


# ------------------------------------------------------------------------------------------ curves of an experiment


def test_trials_are_grouped_by_all_but_their_seed(experiment, tmp_path, capsys):
    analysis, _ = experiment
    folder = analysis.experiment_path
    groups = group_runs(find_runs([folder, analysis.trials[0].path]))  # twice named is once read
    assert {group.label: [run.seed for run in group.runs] for group in groups} == {
        "lr=0.01 (2 seeds)": [1, 2],
        "lr=0.001 (2 seeds)": [1, 2],
    }
    # The learners' metrics are no columns of Tune's progress.csv where they are missing in its first row.
    by_folder = {os.path.realpath(t.path): t for t in analysis.trials}
    run = groups[0].runs[0]
    steps, values = read_values(run, "learners/agent_0/critic_loss")
    losses = [r["learners"]["agent_0"]["critic_loss"] for r in results_of(by_folder[str(run.folder)])]
    assert (steps.tolist(), values.tolist()) == ([200, 400, 600], losses)
    assert main(["plot", folder, "--per-agent", "--out", str(tmp_path / "p.png")]) == 0
    assert "lr=0.001 (2 seeds)" in capsys.readouterr().out
    assert (tmp_path / "p.png").stat().st_size > 10_000
