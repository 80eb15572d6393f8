"""A training run from first env step to learning curve: loop, result files, checkpoints, stopping and resuming."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EPISODE_LEN_MEAN, NUM_ENV_STEPS_SAMPLED_LIFETIME

from rllib_maddpg.algorithm.checkpoints import load_config
from rllib_maddpg.algorithm.maddpg import MADDPG
from rllib_maddpg.algorithm.members import algorithm_class, new_config, shown_name
from rllib_maddpg.config.config_file import ALGORITHM, CONFIG_FILE, DEFAULT_ALGORITHM, write_config
from rllib_maddpg.config.maddpg_config import MADDPGConfig
from rllib_maddpg.config.replay_checks import replay_resources
from rllib_maddpg.config.text_settings import apply_settings
from rllib_maddpg.plotting.plots import save_learning_curve
from rllib_maddpg.results.folder_lock import locked
from rllib_maddpg.results.output_paths import make_folder, why_not_written
from rllib_maddpg.results.result_files import ResultFiles, read_progress, rows_until, write_params
from rllib_maddpg.results.run_folder import RunFolder, find_checkpoint, run_at
from rllib_maddpg.results.versions import versions
from rllib_maddpg.runs.built import stopped_after
from rllib_maddpg.runs.closing_evaluation import ClosingEvaluation
from rllib_maddpg.runs.ray_start import local_ray
from rllib_maddpg.runs.stop_signals import StopSignals

logger = logging.getLogger(__name__)

DEFAULT_ENV_STEPS, DEFAULT_SEED = 100_000, 0
_CHECKPOINT_DEFAULTS = {"checkpoint_every": 20_000, "keep_checkpoints": 2}
CURVE_FILE = "learning_curve.png"


@dataclass
class TrainOptions:
    """What to train and where to put it. None: the default, or in a resumed run what it had.

    Attributes:
        env: Name as in `resolve_env`.
        env_steps: Total of the run, also of a resumed one.
        seed: Of everything random.
        out: New run folder; None: `results/<env>_s<seed>_<date-time>`, with another algorithm's name after that of the env.
        num_env_runners: Remote env runners; 0: the main process samples.
        num_envs: Environments of each runner.
        env_config: Settings of the env.
        settings: Any settings of MADDPG and RLlib, see `apply_settings`.
        checkpoint_every: Env steps from one checkpoint to the next.
        keep_checkpoints: How many of the newest stay.
        eval_episodes: Noise-free episodes at the end, at most; 0: none; None: see `ClosingEvaluation`.
        torch_threads: Of this process.
        address: Of the Ray cluster to run on, see `local_ray`.
        resume: Run or checkpoint folder to continue.
        argv: The words of the command line, for `run.json`.
        algorithm: Name or path as in `algorithm_class`; None: MADDPG.
    """

    env: str | None = None
    env_steps: int | None = None
    seed: int | None = None
    out: str | None = None
    num_env_runners: int | None = None
    num_envs: int | None = None
    env_config: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    checkpoint_every: int | None = None
    keep_checkpoints: int | None = None
    eval_episodes: int | None = None
    torch_threads: int = 1
    address: str | None = None
    resume: str | None = None
    argv: list[str] = field(default_factory=list)
    algorithm: str | None = None


class Observer:
    """Is told how a run goes; this one does nothing."""

    def started(self, folder: Path, env_steps: int, total: int) -> None:
        """Env steps already made (by the run that is resumed) and in all."""

    def iterated(self, env_steps: int, total: int, result: dict[str, Any]) -> None:
        """After each `algo.train()`."""

    def evaluating(self, episodes: int, seconds: float) -> None:
        """Before the evaluation at the end: so many episodes, or fewer if they take more than so many seconds."""

    def stopping(self) -> None:
        """On the first signal to stop; called from a signal handler."""


@dataclass
class RunSummary:
    """How a run ended.

    Attributes:
        folder: The run folder.
        checkpoint: The last checkpoint; None if none could be saved.
        save_error: Why what came after that checkpoint could not be saved; None: it was, or nothing came.
        env_steps: Env steps in all.
        stop_signal: The signal that stopped it, or None.
        error: What training raised, or None.
        closing: The evaluation at the end of a finished run; None: not finished.
    """

    folder: Path
    checkpoint: Path | None
    env_steps: int
    stop_signal: int | None = None
    error: Exception | None = None
    save_error: Exception | None = None
    closing: ClosingEvaluation | None = None


def train(options: TrainOptions, observer: Observer | None = None) -> RunSummary:
    """Trains to the end, or until SIGINT, SIGTERM, SIGHUP or an error in training, and leaves a checkpoint in each case.

    Raises:
        ValueError: If options or settings are not allowed, the folder cannot be written to or another run uses it, before any
            actor starts; or if a checkpoint is damaged.
        StoppedAtOnce: On a second signal; what was trained since the last checkpoint is lost then.
    """
    observer = observer or Observer()
    with contextlib.ExitStack() as stack:
        plan = _plan(options, stack)
        torch.set_num_threads(options.torch_threads)
        config = plan.config
        actors = config.num_env_runners + (config.num_learners or 0) + (config.evaluation_num_env_runners or 0)
        actors += len(replay_resources(config))
        stack.enter_context(local_ray(actors, options.address))
        checkpoint = plan.checkpoint
        algo = MADDPG.from_checkpoint(str(checkpoint), config=config) if checkpoint else config.build_algo()
        with stopped_after(algo):
            return _train(algo, plan, observer)


def build_config(options: TrainOptions) -> MADDPGConfig:
    """The checked config of a new run.

    Raises:
        ValueError: On an unknown algorithm, env or key, or a value that is not allowed.
    """
    config = new_config(options.algorithm).environment(options.env, env_config=options.env_config)
    config.debugging(seed=DEFAULT_SEED if options.seed is None else options.seed)
    if options.num_env_runners is not None:
        config.env_runners(num_env_runners=options.num_env_runners)
    if options.num_envs is not None:
        config.env_runners(num_envs_per_env_runner=options.num_envs)
    apply_settings(config, options.settings)
    config.validate()
    return config


# ------------------------------------------------------------------------------------------ what will be done


@dataclass
class _Plan:
    config: MADDPGConfig
    folder: RunFolder
    checkpoint: Path | None
    total: int
    info: dict[str, Any]
    closing: ClosingEvaluation

    @property
    def algorithm(self) -> str:
        """Its name."""
        return shown_name(self.config.algo_class)


def _plan(options: TrainOptions, stack: contextlib.ExitStack) -> _Plan:
    """What will be done; the lock of the folder goes onto the stack."""
    for name in ("env_steps", "checkpoint_every", "keep_checkpoints", "torch_threads", "num_envs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} {value} must be at least 1.")
    if options.eval_episodes is not None and options.eval_episodes < 0:
        raise ValueError(f"--eval-episodes {options.eval_episodes} must be at least 0; 0 plays none.")
    plan = _plan_new(options, stack) if options.resume is None else _plan_resumed(options, options.resume, stack)
    plan.info["env_steps"] = plan.total
    for name, default in _CHECKPOINT_DEFAULTS.items():
        plan.info[name] = getattr(options, name) or plan.info.get(name) or default
    return plan


def _plan_new(options: TrainOptions, stack: contextlib.ExitStack) -> _Plan:
    if options.env is None:
        raise ValueError("Name the environment to train in, or a run to continue: --resume DIR.")
    config = build_config(options)
    algorithm = shown_name(config.algo_class)
    # So that runs of several members in one env can be told apart.
    name = options.env if algorithm == DEFAULT_ALGORITHM else f"{options.env}_{algorithm}"
    folder = stack.enter_context(RunFolder.new(options.out, name, config.seed))
    info = {ALGORITHM: algorithm, "env": options.env, "seed": config.seed, "env_steps": 0, **_origin(options)}
    closing = ClosingEvaluation(options.eval_episodes)
    return _Plan(config, folder, None, options.env_steps or DEFAULT_ENV_STEPS, info, closing)


def _plan_resumed(options: TrainOptions, resume: str, stack: contextlib.ExitStack) -> _Plan:
    for name in ("seed", "num_env_runners", "num_envs", "env_config", "settings"):
        if getattr(options, name) not in (None, {}):
            flag = {"settings": "set"}.get(name, name.replace("_", "-"))
            raise ValueError(f"--{flag} cannot be changed by --resume: a run keeps the settings in its checkpoint.")
    run = run_at(resume) if options.out is None else None
    if run is not None:
        # First of all: a run that is still going saves and removes checkpoints.
        stack.enter_context(locked(make_folder("--resume", run.path)))
    checkpoint, run = find_checkpoint(resume)
    # What all runs had before it was a setting.
    config = load_config(checkpoint, {"process_wide_speedups": True})
    if options.env is not None and options.env != config.env:
        raise ValueError(f"ENV is {options.env!r}, but {resume} was trained in {config.env!r}. Leave ENV out.")
    algorithm = shown_name(config.algo_class)
    if options.algorithm is not None and algorithm_class(options.algorithm) is not config.algo_class:
        raise ValueError(f"--algorithm is {options.algorithm!r}, but {resume} is a run of {algorithm}. Leave it out.")
    info: dict[str, Any] = {ALGORITHM: algorithm, "env": str(config.env), "seed": config.seed, **_origin(options)}
    if run is not None:
        info = {
            ALGORITHM: algorithm,  # runs of before have it not
            **run.read_info(),
            "resumes": [*run.read_info().get("resumes", []), {"from": checkpoint.name, **_origin(options)}],
        }
    if options.out is None and run is not None:
        folder = run
        if checkpoint == Path(resume).resolve() and run.newest_checkpoint() != checkpoint:
            raise ValueError(
                f"The run has a newer checkpoint than {checkpoint.name}. Resume {run.path}, or start a new run "
                f"from this one: `--resume {checkpoint} --out NEW_FOLDER`."
            )
    else:
        folder = stack.enter_context(RunFolder.new(options.out, str(config.env), config.seed))
    total = options.env_steps or info.get("env_steps") or DEFAULT_ENV_STEPS
    return _Plan(config, folder, checkpoint, total, info, ClosingEvaluation(options.eval_episodes))


def _origin(options: TrainOptions) -> dict[str, Any]:
    return {"started": f"{datetime.now():%Y-%m-%d %H:%M:%S}", "argv": options.argv, "versions": versions()}


# ------------------------------------------------------------------------------------------ doing it


def _train(algo: MADDPG, plan: _Plan, observer: Observer) -> RunSummary:
    env_steps = algo._env_steps
    if env_steps >= plan.total:
        raise ValueError(
            f"{plan.checkpoint} has {env_steps:,} env steps already. Give the total to train to, such as "
            f"`--env-steps {2 * env_steps}`."
        )
    files = _open_folder(algo, plan, env_steps)
    folder = plan.folder.path
    # RLlib's checkpoints hold the iteration, but not the time spent (seconds).
    earlier = rows_until(read_progress(folder), env_steps)
    algo._time_total = float(earlier[-1]["time_total_s"]) if earlier else 0.0
    algo.saves_before_error = False  # `_loop` does
    summary = RunSummary(folder, plan.checkpoint, env_steps)
    observer.started(folder, env_steps, plan.total)
    try:
        with StopSignals(observer.stopping) as stop:
            _loop(algo, plan, observer, summary, files, stop)
    finally:
        files.close()
    try:
        title = f"{plan.algorithm} in {plan.info['env']}, seed {plan.info['seed']}"
        save_learning_curve(folder, folder / CURVE_FILE, title)
    except ValueError:  # no finished episode yet, so nothing to draw
        pass
    except OSError as error:
        (folder / CURVE_FILE).unlink(missing_ok=True)
        logger.warning("%s cannot be written: %s.", folder / CURVE_FILE, why_not_written(error))
    return summary


def _open_folder(algo: MADDPG, plan: _Plan, env_steps: int) -> ResultFiles:
    """Writes down what is going to be trained."""
    folder = plan.folder
    try:
        folder.create(env_steps)
        folder.write_info(plan.info)
        write_params(folder.path, {ALGORITHM: plan.algorithm, **algo.config.to_dict()})
        write_config(algo.config, folder.path / CONFIG_FILE, type(algo))
    except OSError as error:
        raise ValueError(f"{folder.path} cannot be written to: {why_not_written(error)}.") from error
    return ResultFiles(folder.path, env_steps)


def _loop(
    algo: MADDPG,
    plan: _Plan,
    observer: Observer,
    summary: RunSummary,
    files: ResultFiles,
    stop: StopSignals,
) -> None:
    """Trains, saves and evaluates; keeps `summary` up to date."""
    began, began_at = time.monotonic(), summary.env_steps
    saved_at = summary.env_steps
    episode_length = float("inf")

    def save() -> None:
        nonlocal saved_at
        summary.checkpoint = plan.folder.save_checkpoint(algo, summary.env_steps, plan.info["keep_checkpoints"])
        saved_at = summary.env_steps

    try:
        while summary.env_steps < plan.total and stop.signal is None:
            result = algo.train()
            summary.env_steps = int(result[NUM_ENV_STEPS_SAMPLED_LIFETIME])
            length = result[ENV_RUNNER_RESULTS].get(EPISODE_LEN_MEAN, math.nan)
            if math.isfinite(length):  # RLlib's mean is NaN after an iteration in which no episode ended
                episode_length = length
            files.write(result, summary.env_steps)
            observer.iterated(summary.env_steps, plan.total, result)
            # Marks at whole multiples, so that a resumed run saves where the first one would have.
            if summary.env_steps // plan.info["checkpoint_every"] > saved_at // plan.info["checkpoint_every"]:
                save()
        if saved_at < summary.env_steps:
            save()
    except Exception as error:
        summary.error = error
        summary.env_steps = max(summary.env_steps, algo._env_steps)
        # The error of the training is the one to show, not one that may follow from it.
        try:
            if saved_at < summary.env_steps:
                save()
            elif summary.checkpoint is None:
                summary.checkpoint = plan.folder.save_before_error(algo)
        except Exception as failed:
            summary.save_error = failed
    summary.stop_signal = stop.signal
    if summary.error is None and stop.signal is None:
        trained = summary.env_steps - began_at
        summary.closing = plan.closing
        summary.closing.play(algo, trained, time.monotonic() - began, episode_length, observer.evaluating, stop)
