"""Learning curves of many runs: found in folders, grouped by algorithm and settings but the seed, averaged with a 95 % band."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from ray.air._internal.json import SafeFallbackEncoder
from ray.tune.utils import flatten_dict
from scipy import stats

from rllib_maddpg.algorithm.members import MEMBERS
from rllib_maddpg.config.config_file import ALGORITHM, DEFAULT_ALGORITHM
from rllib_maddpg.config.text_settings import SHORT_NAMES
from rllib_maddpg.envs.errors import did_you_mean
from rllib_maddpg.results.progress import AGENTS, ENV_STEPS, TEAM
from rllib_maddpg.results.result_files import CSV_FILE, JSON_FILE, PARAMS_FILE, json_rows, read_progress
from rllib_maddpg.results.run_folder import CHECKPOINTS
from rllib_maddpg.results.tune_folder import trainable_of

# Points of a mean curve, at most; with fewer results than that it has their env steps.
MAX_POINTS = 1000
# RLlib's inner names of settings; others that begin with "_" are no settings.
_INNER_NAMES = {"_model_config": "model_config", "_train_batch_size_per_learner": "train_batch_size_per_learner"}
# The seed, what follows from other settings, and what changes no result.
_IGNORED = {"seed", "policies", "simple_optimizer", "train_batch_size", "log_level", "logger_config", "callbacks", "class"}
_IGNORED |= {"shared_learner"}  # a trial learns the same alone
# Of the results: bookkeeping that nobody asks a curve of, left out where messages list what there is.
_BOOKKEEPING = re.compile(
    r"(^|/)(num_|time|iterations_|pid|perf/|fault_tolerance/|env_runner_group/|weights_seq_no|sample$)|_timer|throughput"
)


@dataclass(frozen=True)
class Run:
    """One folder with results. `settings` are flat (`env_config/N`), complete with the algorithm, and without the seed."""

    folder: Path
    seed: int | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed, and what tells them from the other groups (empty: nothing)."""

    runs: list[Run]
    differs: dict[str, Any]

    @property
    def label(self) -> str:
        """Such as "lr=0.001, tau=0.02 (3 seeds)"."""
        seeds = len({run.seed for run in self.runs})
        # Runs without a seed, or twice with the same one.
        noun = "seed" if seeds == len(self.runs) and self.runs[0].seed is not None else "run"
        count = f"{len(self.runs)} {noun}{'s' if len(self.runs) > 1 else ''}"
        settings = ", ".join(f"{key}={_short(value)}" for key, value in self.differs.items())
        return f"{settings} ({count})" if settings else count


@dataclass(frozen=True)
class MeanCurve:
    """Mean over runs at common env steps, `[points]` each; `low` and `high` are NaN where there is but one run."""

    env_steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


# ------------------------------------------------------------------------------------------ folders


def find_runs(paths: Sequence[str | Path]) -> list[Run]:
    """All runs in the folders: run folders of `train`, trial folders, or folders with such at any depth.

    Raises:
        ValueError: If there is no such folder, no result in it, or no settings beside a result.
    """
    found: dict[Path, Run] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise ValueError(f"{path} is no folder. Name run folders of `train`, trial folders, or experiment folders of Tune.")
        files = sorted({*path.rglob(CSV_FILE), *path.rglob(JSON_FILE)})
        folders = {file.parent.resolve() for file in files if CHECKPOINTS not in file.relative_to(path).parts}
        if not folders:
            raise ValueError(f"{path} has no {CSV_FILE} and no {JSON_FILE}, nor has a folder in it: nothing was trained there.")
        found.update((folder, _read_run(folder)) for folder in sorted(folders) if folder not in found)
    return list(found.values())


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Groups in the order of their first runs; runs in the order of their seeds."""
    by_settings: dict[str, list[Run]] = {}
    for run in runs:
        by_settings.setdefault(json.dumps(run.settings, sort_keys=True), []).append(run)
    members = [sorted(group, key=lambda run: (run.seed is None, run.seed)) for group in by_settings.values()]
    first = "env", ALGORITHM
    keys = sorted({key for group in members for key in group[0].settings}, key=lambda key: (key not in first, key))
    settings = [group[0].settings for group in members]
    # The names of algorithms say in what their defaults differ.
    differing = [key for key in keys if len({_unless_default(s, key) for s in settings}) > 1]
    names = [key.rsplit("/", 1)[-1] for key in differing]
    shown = {k: SHORT_NAMES.get(n, n) if names.count(n) == 1 else k for k, n in zip(differing, names, strict=True)}
    return [Group(group, {shown[key]: group[0].settings.get(key) for key in differing}) for group in members]


def _read_run(folder: Path) -> Run:
    try:
        params = json.loads((folder / PARAMS_FILE).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} has results, but its {PARAMS_FILE} cannot be read: {error}") from error
    algorithm = str(params.get(ALGORITHM) or trainable_of(folder) or DEFAULT_ALGORITHM)
    # A trial's file has only what was given to Tune, the one of `train` all.
    settings = {**_default_settings(algorithm), **_flat(params), ALGORITHM: algorithm}
    return Run(folder, params.get("seed"), settings)


def _unless_default(settings: dict[str, Any], key: str) -> str | None:
    """The value as text; None if it is the default of the run's algorithm."""
    defaults, value = _default_settings(settings[ALGORITHM]), settings.get(key)
    return None if key in defaults and defaults[key] == value else json.dumps(value)


@cache
def _default_settings(algorithm: str) -> dict[str, Any]:
    # Those of an algorithm of the user's are not known: a picture is no reason to import anything.
    config = MEMBERS.get(algorithm, MEMBERS[DEFAULT_ALGORITHM]).get_default_config()
    defaults = {**config.to_dict(), "_model_config": {k: config.model_config[k] for k in ("fcnet_hiddens", "fcnet_activation")}}
    return _flat(json.loads(json.dumps(defaults, cls=SafeFallbackEncoder)))


def _flat(params: dict[str, Any]) -> dict[str, Any]:
    named = {_INNER_NAMES.get(key, key): value for key, value in params.items()}
    kept = {key: value for key, value in named.items() if not key.startswith("_") and key not in _IGNORED}
    flat = flatten_dict(kept, delimiter="/")
    # The same object has another address in each process.
    return {k: re.sub(r" at 0x[0-9a-f]+", "", v) if isinstance(v, str) else v for k, v in flat.items() if v != {}}


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value).strip('"')


# ------------------------------------------------------------------------------------------ values


def read_values(run: Run, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Env steps, rising, and values `[results]` of a metric, where there is a value.

    Raises:
        ValueError: If the run has no such metric (with the names of those it has), or never a value of it.
    """
    rows = [(_number(row.get(ENV_STEPS)), _number(row.get(metric))) for row in _rows(run.folder, metric)]
    rows = [row for row in without_abandoned(rows, lambda row: row[0]) if math.isfinite(row[1])]
    if not rows:
        raise ValueError(f"{run.folder} has never a number as {metric!r}.")
    env_steps, values = np.array(rows, float).T
    return env_steps, values


def without_abandoned(rows: Sequence[Any], env_steps: Callable[[Any], float]) -> list[Any]:
    """The rows without those that a run, resumed from an older checkpoint, went back behind."""
    kept: list[Any] = []
    for row in rows:
        while kept and env_steps(kept[-1]) >= env_steps(row):
            kept.pop()
        kept.append(row)
    return kept


def agents_of(run: Run) -> list[str]:
    """The agents that have a return, sorted."""
    return sorted(key.removeprefix(f"{AGENTS}/") for key in _metrics(_json_rows(run.folder)) if key.startswith(f"{AGENTS}/"))


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Each value replaced by the mean of it and those before it, `window` at most."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def mean_curve(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> MeanCurve:
    """Mean and Student-t 95 % band of its mean, over runs, where all of them have values; in between linear.

    Raises:
        ValueError: If the runs have no env steps in common.
    """
    first, last = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    if first > last:
        raise ValueError(
            f"Runs of the same settings have no env steps in common: one begins at {first:,.0f}, another ends at {last:,.0f}."
        )
    grid = np.unique(np.concatenate([x for x, _ in curves]))
    grid = grid[(grid >= first) & (grid <= last)]
    if len(grid) > MAX_POINTS:
        grid = np.linspace(first, last, MAX_POINTS)
    values = np.array([np.interp(grid, x, y) for x, y in curves])
    mean, n = values.mean(axis=0), len(curves)
    half = stats.t.ppf(0.975, n - 1) * values.std(axis=0, ddof=1) / math.sqrt(n) if n > 1 else np.full_like(mean, math.nan)
    return MeanCurve(grid, mean, mean - half, mean + half)


def _rows(folder: Path, metric: str) -> list[dict[str, Any]]:
    """Rows that have the metric: of `progress.csv`, or where Tune has left the column out, of `result.json`."""
    rows: list[dict[str, Any]] = read_progress(folder)
    if rows and metric in rows[0]:
        return rows
    rows = _json_rows(folder)
    if not any(metric in row for row in rows):
        known = _metrics(rows)
        if not known:
            raise ValueError(f"{folder} has no results yet.")
        if metric == TEAM or metric.startswith(f"{AGENTS}/"):
            raise ValueError(f"{folder} has no learning curve: no episode has ended in it.")
        raise ValueError(f"{folder} has no metric {metric!r}.{did_you_mean(metric, known)} There are: {_listed(known)}.")
    return rows


def _listed(metrics: set[str]) -> str:
    """The metrics in short: those of all modules and agents once."""
    names = {re.sub(r"^learners/(?!__)[^/]+/", "learners/MODULE/", key) for key in metrics if not _BOOKKEEPING.search(key)}
    names = {re.sub(r"^(env_runners/(?:agent|module)_[^/]+/).*", r"\1ID", name) for name in names}
    modules = sorted({key.split("/")[1] for key in metrics if key.startswith("learners/") and "/__" not in key})
    which = f" (MODULE: {', '.join(modules)})" if modules else ""
    return f"{', '.join(sorted(names))}{which}, and counters and timers"


def _json_rows(folder: Path) -> list[dict[str, Any]]:
    file = folder / JSON_FILE
    if not file.is_file():
        return list(read_progress(folder))
    rows = ({key: value for key, value in row.items() if key != "config"} for row in json_rows(file))
    return [flatten_dict(row, delimiter="/") for row in rows]


def _metrics(rows: Sequence[dict[str, Any]]) -> set[str]:
    return {key for row in rows for key, value in row.items() if math.isfinite(_number(value)) and not isinstance(value, bool)}


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
