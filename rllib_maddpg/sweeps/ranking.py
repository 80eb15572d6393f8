"""What came out of a sweep: trials, points (trials that differ in the seed alone), and their order."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune.experiment import Trial

from rllib_maddpg.config.config_file import ALGORITHM
from rllib_maddpg.results.result_files import json_rows
from rllib_maddpg.results.run_folder import BEST_CHECKPOINT
from rllib_maddpg.results.whole_file import replace_json, replace_text
from rllib_maddpg.sweeps.schema import Sweep
from rllib_maddpg.sweeps.search import swept_value

RESULTS_FILE, BEST_FILE = "results.csv", "best.json"
FINISHED, STOPPED, FAILED, UNFINISHED = "finished", "stopped early", "failed", "unfinished"


@dataclass
class TrialRecord:
    """One training run.

    Attributes:
        name: Its folder in the sweep's folder.
        values: Swept key -> value (under PBT: the last one).
        seed: Of the run.
        status: "finished", "stopped early" (by the scheduler), "failed" or "unfinished".
        env_steps: Made at the last result.
        seconds: Of training.
        curve: (env steps, metric) of each result that has one.
        checkpoint: The newest one, or None.
        error: Text of a failure.
    """

    name: str
    values: dict[str, Any]
    seed: int
    status: str
    env_steps: int
    seconds: float
    curve: list[tuple[int, float]]
    checkpoint: str | None
    error: str

    @property
    def final(self) -> float | None:
        """The metric in the last result that has it."""
        return self.curve[-1][1] if self.curve else None

    def best(self, mode: str) -> float | None:
        """The best metric of all results."""
        values = [value for _, value in self.curve]
        return (max if mode == "max" else min)(values) if values else None


@dataclass
class Point:
    """Trials with the same values.

    Attributes:
        values: Swept key -> value.
        trials: One for each seed.
        mean: Mean of the trials' final metrics, or None.
        rank: 1 is the best.
    """

    values: dict[str, Any]
    trials: list[TrialRecord] = field(default_factory=list)
    mean: float | None = None
    rank: int = 0

    @property
    def share_finished(self) -> float:
        """Of its trials."""
        return sum(trial.status == FINISHED for trial in self.trials) / len(self.trials)


def read_trials(trials: Iterable[Trial], statuses: Mapping[str, str], sweep: Sweep, folder: Path) -> list[TrialRecord]:
    """Records of Tune's trials, from the result files in the sweep's folder.

    Args:
        trials: In any order.
        statuses: Trial id -> Tune's status, where it is not the one that the trial has.
        sweep: The sweep.
        folder: Of the sweep.
    """
    ordered = sorted(trials, key=_number)
    return [_read_trial(trial, statuses.get(trial.trial_id, trial.status), sweep, folder) for trial in ordered]


def _read_trial(trial: Trial, tune_status: str, sweep: Sweep, folder: Path) -> TrialRecord:
    path = folder / trial.storage.trial_dir_name
    results = read_results(path / "result.json")
    last = results[-1] if results else {}
    env_steps = int(last.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0))
    if tune_status == Trial.TERMINATED:
        status = FINISHED if env_steps >= sweep.env_steps else STOPPED
    else:
        status = FAILED if tune_status == Trial.ERROR else UNFINISHED
    curve = [
        (int(r[NUM_ENV_STEPS_SAMPLED_LIFETIME]), value) for r in results if (value := metric_of(r, sweep.metric)) is not None
    ]
    checkpoint = trial.checkpoint
    config = trial.config or {}
    return TrialRecord(
        name=path.name,
        values={axis.key: swept_value(config, axis.key) for axis in sweep.axes},
        seed=config["seed"],
        status=status,
        env_steps=env_steps,
        seconds=float(last.get("time_total_s", 0.0)),
        curve=curve,
        checkpoint=str(checkpoint.path) if checkpoint is not None and os.path.isdir(checkpoint.path) else None,
        error=_error_text(trial) if status == FAILED else "",
    )


def _number(trial: Trial) -> int:
    """Tune numbers trials in the order of their making."""
    number = str(trial.experiment_tag).split("_")[0]
    return int(number) if number.isdigit() else 0


def _error_text(trial: Trial) -> str:
    error = trial.get_error() or trial.get_ray_actor_error()
    if error is None:
        return "unknown; see error.txt in its folder"
    cause = getattr(error, "cause", None) or error
    return " ".join(f"{type(cause).__name__}: {cause}".split())


def read_results(file: Path) -> list[dict[str, Any]]:
    """The results in a trial's `result.json`, oldest first.

    Where a trial was resumed from a checkpoint that is older than its last row, the rows of that abandoned part are left out,
    and so is a line that a killed process has not finished.
    """
    rows: list[dict[str, Any]] = []
    for row in json_rows(file):
        if NUM_ENV_STEPS_SAMPLED_LIFETIME not in row:
            continue
        while rows and rows[-1][NUM_ENV_STEPS_SAMPLED_LIFETIME] >= row[NUM_ENV_STEPS_SAMPLED_LIFETIME]:
            rows.pop()
        rows.append(row)
    return rows


def metric_of(result: Mapping[str, Any], metric: str) -> float | None:
    """The number at a path such as "env_runners/episode_return_mean", or None if there is none or it is not finite."""
    value: Any = result
    for part in metric.split("/"):
        value = value.get(part) if isinstance(value, Mapping) else None
    ok = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if ok else None


def rank_points(trials: list[TrialRecord], sweep: Sweep) -> list[Point]:
    """Points, best first, by the mean over seeds of the final metric.

    Points of which a larger share of seeds went to the end come first: a run that was stopped early, or failed, has shown
    less. Points without any number come last.
    """
    points: dict[str, Point] = {}
    for trial in trials:
        key = json.dumps(trial.values, default=str) if sweep.ranks_seeds_together else trial.name
        points.setdefault(key, Point(trial.values)).trials.append(trial)
    for point in points.values():
        finals = [trial.final for trial in point.trials if trial.final is not None]
        point.mean = sum(finals) / len(finals) if finals else None
    sign = 1 if sweep.mode == "max" else -1

    def order(point: Point) -> tuple:
        return point.mean is not None, point.share_finished, sign * (point.mean or 0.0)

    ranked = sorted(points.values(), key=order, reverse=True)
    for rank, point in enumerate(ranked, start=1):
        point.rank = rank
    return ranked


def best_trial(points: list[Point], sweep: Sweep) -> TrialRecord | None:
    """Of the best point the seed with the best final metric among those that have a checkpoint."""
    if not points or points[0].mean is None:
        return None
    trials = [trial for trial in points[0].trials if trial.final is not None and trial.checkpoint]
    if not trials:
        return None
    sign = 1 if sweep.mode == "max" else -1
    return max(trials, key=lambda trial: (trial.status == FINISHED, sign * trial.final))


# ------------------------------------------------------------------------------------------ files


def write_results(points: list[Point], sweep: Sweep, folder: Path) -> None:
    """Writes `results.csv`: one row for each trial, best point first."""
    keys = [axis.key for axis in sweep.axes]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    numbers = ["final", "best", "mean_over_seeds", "env_steps", "seconds"]
    writer.writerow(["rank", "trial", "status", *keys, "seed", *numbers, "checkpoint", "error"])
    for point in points:
        for trial in point.trials:
            values = [_cell(trial.values[key]) for key in keys]
            found = [trial.final, trial.best(sweep.mode), point.mean, trial.env_steps, round(trial.seconds, 1)]
            checkpoint = os.path.relpath(trial.checkpoint, folder) if trial.checkpoint else ""
            row = [point.rank, trial.name, trial.status, *values, trial.seed, *found, checkpoint, trial.error]
            writer.writerow(["" if cell is None else cell for cell in row])
    replace_text(folder / RESULTS_FILE, text.getvalue())


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def write_best(points: list[Point], best: TrialRecord, sweep: Sweep, folder: Path) -> None:
    """Writes `best.json` and copies the best trial's newest checkpoint to `best_checkpoint`."""
    target, part = folder / BEST_CHECKPOINT, folder / f".{BEST_CHECKPOINT}"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(best.checkpoint, part)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    info = {
        "values": points[0].values,
        "metric": sweep.metric,
        "mean_over_seeds": points[0].mean,
        "seeds": {str(trial.seed): trial.final for trial in points[0].trials},
        "trial": best.name,
        "trial_seed": best.seed,
        "checkpoint": str(target),
        "copied_from": best.checkpoint,
        ALGORITHM: best.values.get(ALGORITHM, sweep.algorithm),
        "env": sweep.env,
        "env_config": sweep.env_config,
        "settings": sweep.settings,
    }
    replace_json(folder / BEST_FILE, info)
