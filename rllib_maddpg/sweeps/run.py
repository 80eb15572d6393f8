"""Runs a sweep with Ray Tune, or goes on with one, and leaves table, best checkpoint and pictures."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ray import tune
from ray.tune import CheckpointConfig, FailureConfig, ProgressReporter, RunConfig, TuneConfig, Tuner
from ray.tune.experiment import Trial

from rllib_maddpg.results.output_paths import check_local
from rllib_maddpg.runs.ray_start import ray_at
from rllib_maddpg.shared.life import SharedLearner
from rllib_maddpg.sweeps.folder import SweepFolder
from rllib_maddpg.sweeps.metrics import check_metric
from rllib_maddpg.sweeps.pictures import save_pictures
from rllib_maddpg.sweeps.ranking import (
    FAILED,
    UNFINISHED,
    Point,
    TrialRecord,
    best_trial,
    rank_points,
    read_trials,
    write_best,
    write_results,
)
from rllib_maddpg.sweeps.resources import Placement, check_resources, place
from rllib_maddpg.sweeps.result_file import ResultJson
from rllib_maddpg.sweeps.schema import Sweep, read_sweep
from rllib_maddpg.sweeps.search import ENV_STEPS, make_scheduler, make_searcher, perturb_every, tune_num_samples
from rllib_maddpg.sweeps.snapshots import Watch, repair_checkpoints, repair_snapshot, snapshot_period
from rllib_maddpg.sweeps.trial_config import check_trials, param_space, trainable

# What Tune reads from the environment, where the user has not set it.
_TUNE_ENVIRONMENT = {
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # A first iteration in which no episode has ended has no return yet.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Errors are told once, at the end.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
# Of a trial, where all of them depend on one actor.
_MAX_FAILURES = 3


@dataclass
class SweepOptions:
    """What to sweep and where to put it; None: what the file says.

    Attributes:
        file: The YAML file.
        out: Folder of the sweep; None: `results/<name of the file>`.
        resume: Go on with the sweep in that folder.
        num_samples: Points to draw.
        max_concurrent: Trials at the same time.
        address: Of a Ray cluster; None: this machine.
        argv: The words of the command line.
    """

    file: str
    out: str | None = None
    resume: bool = False
    num_samples: int | None = None
    max_concurrent: int | None = None
    address: str | None = None
    argv: tuple[str, ...] = ()


@dataclass
class SweepSummary:
    """How a sweep ended.

    Attributes:
        folder: Of the sweep.
        sweep: As it was read.
        points: Best first.
        best: The trial whose checkpoint is `best_checkpoint`; None if no trial has a number and a checkpoint.
        pictures: Files drawn.
    """

    folder: Path
    sweep: Sweep
    points: list[Point]
    best: TrialRecord | None
    pictures: list[Path]

    @property
    def trials(self) -> list[TrialRecord]:
        """All trials."""
        return [trial for point in self.points for trial in point.trials]

    @property
    def failed(self) -> list[TrialRecord]:
        """Trials that raised an error."""
        return [trial for trial in self.trials if trial.status == FAILED]

    @property
    def is_complete(self) -> bool:
        """Whether no trial is left to train."""
        return len(self.trials) >= self.sweep.num_trials and not any(trial.status == UNFINISHED for trial in self.trials)


class SweepObserver:
    """Is told how a sweep goes; this one does nothing."""

    def started(self, folder: Path, sweep: Sweep, placement: Placement) -> None:
        """Before the first trial starts."""


def run_sweep(
    options: SweepOptions,
    observer: SweepObserver | None = None,
    progress_reporter: ProgressReporter | None = None,
    verbose: int = 1,
) -> SweepSummary:
    """Runs the sweep to its end, or until SIGINT.

    Args:
        options: What to sweep.
        observer: Is told how it goes.
        progress_reporter: Tune's reporter; None: Tune chooses.
        verbose: Tune's; 0: silent.

    Raises:
        ValueError: If the file, the folder or the machine does not allow it, before any trial starts.
    """
    sweep = read_sweep(options.file, options.num_samples, options.max_concurrent)
    config = check_trials(sweep)
    check_metric(sweep, config)
    check_resources(sweep)
    if options.out is not None:
        check_local("--out", options.out)
    folder = SweepFolder(options.out or Path("results") / sweep.file.path.stem)
    check = folder.check_resumable if options.resume else folder.check_new
    check(sweep)
    with contextlib.ExitStack() as stack:
        stack.enter_context(folder.locked())
        check(sweep)  # whoever had the folder until now may have written something
        stack.enter_context(_environment(sweep, progress_reporter))
        stack.enter_context(ray_at(options.address, sweep.resources.get("cpus")))
        placement = place(sweep, config)
        (observer or SweepObserver()).started(folder.path, sweep, placement)
        shared = None
        if options.resume:
            if sweep.shares_learner:
                shared = folder.shared_learner()
            tuner = _restore(sweep, folder.path)
        else:
            if sweep.shares_learner:
                shared = folder.new_shared_learner()
            # In this order: a folder is no sweep's if Tune, or Optuna, refuses what it is to hold.
            tuner = _make_tuner(sweep, placement, folder.path, shared)
            folder.create(sweep, list(options.argv), shared)
        # Not what an earlier run has pickled.
        run_config = tuner._local_tuner.get_run_config()
        run_config.progress_reporter, run_config.verbose = progress_reporter, verbose
        watch = Watch(folder.path)
        run_config.callbacks = [watch, ResultJson()]
        with contextlib.nullcontext() if shared is None else SharedLearner(shared, num_gpus=placement.shared_gpus):
            grid = tuner.fit()
        return summarize(sweep, folder.path, grid._experiment_analysis.trials, watch.statuses)


def summarize(sweep: Sweep, folder: Path, trials: list[Trial], statuses: Mapping[str, str]) -> SweepSummary:
    """Ranks the trials and writes table, best checkpoint and pictures; `statuses` where Tune's own are not the true ones."""
    records = read_trials(trials, statuses, sweep, folder)
    points = rank_points(records, sweep)
    best = best_trial(points, sweep)
    write_results(points, sweep, folder)
    if best is not None:
        write_best(points, best, sweep, folder)
    return SweepSummary(folder, sweep, points, best, save_pictures(points, sweep, folder))


def _make_tuner(sweep: Sweep, placement: Placement, folder: Path, shared_learner: str | None) -> Tuner:
    space = param_space(sweep, placement.num_gpus_per_learner, shared_learner)
    if sweep.search != "optuna":  # there `SeedsOfAPoint` sets it
        space["seed"] = tune.grid_search(sweep.seeds) if len(sweep.seeds) > 1 else sweep.seeds[0]
    frequency = max(1, round(sweep.checkpoint_every / sweep.iteration))
    keep = sweep.keep_checkpoints
    if sweep.scheduler == "pbt":
        # Who takes over another's state reads its checkpoint when that one may have made all of these already.
        keep = max(keep, math.ceil(perturb_every(sweep) / (frequency * sweep.iteration)) + 2)
    return Tuner(
        trainable(sweep),
        param_space=space,
        tune_config=TuneConfig(
            metric=sweep.metric,
            mode=sweep.mode,
            search_alg=make_searcher(sweep),
            scheduler=make_scheduler(sweep),
            num_samples=tune_num_samples(sweep),
            max_concurrent_trials=sweep.max_concurrent if sweep.search == "optuna" else None,
            # A new process first imports Ray and torch, which takes longer than many a short trial.
            reuse_actors=True,
            trial_dirname_creator=_trial_folder,
        ),
        run_config=RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            stop={ENV_STEPS: sweep.env_steps},
            checkpoint_config=CheckpointConfig(num_to_keep=keep, checkpoint_frequency=frequency, checkpoint_at_end=True),
            # If the shared Learner dies, all trials fail at once, and go on from their last checkpoints in another one.
            failure_config=FailureConfig(max_failures=0 if shared_learner is None else _MAX_FAILURES),
        ),
    )


def _restore(sweep: Sweep, folder: Path) -> Tuner:
    """The sweep of a folder: unfinished and failed trials go on from their last checkpoints, finished ones stay as they are."""
    repair_snapshot(folder)
    tuner = Tuner.restore(str(folder), trainable(sweep), resume_unfinished=True, resume_errored=True)
    repair_checkpoints(tuner.get_results()._experiment_analysis.trials)
    return tuner


def _trial_folder(trial: Trial) -> str:
    """Tune's tag, which has number, values and seed, as a folder name."""
    return re.sub(r"[^A-Za-z0-9_.=,+-]+", "-", str(trial.experiment_tag))[:120]


@contextlib.contextmanager
def _environment(sweep: Sweep, progress_reporter: ProgressReporter | None) -> Iterator[None]:
    wanted = {**_TUNE_ENVIRONMENT, "TUNE_GLOBAL_CHECKPOINT_S": snapshot_period(sweep)}
    if progress_reporter is not None:
        wanted["RAY_AIR_NEW_OUTPUT"] = "0"  # Tune's newer output takes no reporter
    new = {key: value for key, value in wanted.items() if key not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for key in new:
            os.environ.pop(key, None)
