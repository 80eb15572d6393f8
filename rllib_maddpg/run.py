"""A training run from first env step to learning curve: loop, result files, checkpoints, stopping and resuming."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import ray
import torch
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EPISODE_LEN_MEAN, NUM_ENV_STEPS_SAMPLED_LIFETIME

from rllib_maddpg.checkpoints import load_config
from rllib_maddpg.config import MADDPGConfig
from rllib_maddpg.config_file import CONFIG_FILE, write_config
from rllib_maddpg.evaluation import Evaluation, evaluate_algorithm
from rllib_maddpg.maddpg import MADDPG
from rllib_maddpg.plots import save_learning_curve
from rllib_maddpg.result_files import ResultFiles, read_progress, write_params
from rllib_maddpg.run_folder import RunFolder, find_checkpoint, versions
from rllib_maddpg.settings import apply_settings

DEFAULT_ENV_STEPS, DEFAULT_SEED = 100_000, 0
_CHECKPOINT_DEFAULTS = {"checkpoint_every": 20_000, "keep_checkpoints": 2}
_START_ONE = "Start a cluster with `ray start --head --port=6379`, and `ray start --address=HOST:6379` on its other machines."
CURVE_FILE = "learning_curve.png"
# The evaluation at the end plays at most this many env steps: a few seconds.
_EVALUATION_EPISODES, _EVALUATION_ENV_STEPS = 100, 20_000


@dataclass
class TrainOptions:
    """What to train and where to put it. None: the default, or in a resumed run what it had.

    Attributes:
        env: Name as in `resolve_env`.
        env_steps: Total of the run, also of a resumed one.
        seed: Of everything random.
        out: New run folder; None: `results/<env>_s<seed>_<date-time>`.
        num_env_runners: Remote env runners; 0: the main process samples.
        num_envs: Environments of each runner.
        env_config: Settings of the env.
        settings: Any settings of MADDPG and RLlib, see `apply_settings`.
        checkpoint_every: Env steps from one checkpoint to the next.
        keep_checkpoints: How many of the newest stay.
        torch_threads: Of this process.
        address: Of the Ray cluster to run on, see `local_ray`.
        resume: Run or checkpoint folder to continue.
        argv: The words of the command line, for `run.json`.
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
    torch_threads: int = 1
    address: str | None = None
    resume: str | None = None
    argv: list[str] = field(default_factory=list)


class Observer:
    """Is told how a run goes; this one does nothing."""

    def started(self, folder: Path, env_steps: int, total: int) -> None:
        """Env steps already made (by the run that is resumed) and in all."""

    def iterated(self, env_steps: int, total: int, result: dict[str, Any]) -> None:
        """After each `algo.train()`."""

    def stopping(self) -> None:
        """On the first signal to stop; called from a signal handler."""


@dataclass
class RunSummary:
    """How a run ended.

    Attributes:
        folder: The run folder.
        checkpoint: The last checkpoint; None if none could be saved.
        env_steps: Env steps in all.
        stop_signal: The signal that stopped it, or None.
        error: What training raised, or None.
        evaluation: Noise-free episodes at the end of a finished run, where they are cheap.
    """

    folder: Path
    checkpoint: Path | None
    env_steps: int
    stop_signal: int | None = None
    error: Exception | None = None
    evaluation: Evaluation | None = None


def train(options: TrainOptions, observer: Observer | None = None) -> RunSummary:
    """Trains to the end, or until SIGINT, SIGTERM or an error in training, and leaves a checkpoint in each case.

    Raises:
        ValueError: If options or settings are not allowed, before any actor starts; or if a checkpoint is damaged.
        KeyboardInterrupt: On a second signal; what was trained since the last checkpoint is lost then.
    """
    observer = observer or Observer()
    plan = _plan(options)
    torch.set_num_threads(options.torch_threads)
    config = plan.config
    actors = config.num_env_runners + (config.num_learners or 0) + (config.evaluation_num_env_runners or 0)
    actors += config.replay_buffer_config.get("num_shards", 0)
    with local_ray(actors, options.address):
        algo = MADDPG.from_checkpoint(str(plan.checkpoint)) if plan.checkpoint else plan.config.build_algo()
        try:
            return _train(algo, plan, observer)
        finally:
            algo.stop()
            # Tune's base class makes a folder for each algorithm that is built outside of Tune; nothing goes there.
            with contextlib.suppress(OSError):
                os.rmdir(algo.logdir)


def build_config(options: TrainOptions) -> MADDPGConfig:
    """The checked config of a new run.

    Raises:
        ValueError: On an unknown env or key, or a value that is not allowed.
    """
    config = MADDPGConfig().environment(options.env, env_config=options.env_config)
    config.debugging(seed=DEFAULT_SEED if options.seed is None else options.seed)
    if options.num_env_runners is not None:
        config.env_runners(num_env_runners=options.num_env_runners)
    if options.num_envs is not None:
        config.env_runners(num_envs_per_env_runner=options.num_envs)
    try:
        apply_settings(config, options.settings)
        config.validate()
    except (TypeError, AttributeError) as error:
        # RLlib does not check the types of all of its settings.
        raise ValueError(f"A setting has a value of the wrong type ({error}): {options.settings}.") from error
    return config


# ------------------------------------------------------------------------------------------ what will be done


@dataclass
class _Plan:
    config: MADDPGConfig
    folder: RunFolder
    checkpoint: Path | None
    total: int
    info: dict[str, Any]


def _plan(options: TrainOptions) -> _Plan:
    for name in ("env_steps", "checkpoint_every", "keep_checkpoints", "torch_threads", "num_envs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} {value} must be at least 1.")
    plan = _plan_new(options) if options.resume is None else _plan_resumed(options, options.resume)
    plan.info["env_steps"] = plan.total
    for name, default in _CHECKPOINT_DEFAULTS.items():
        plan.info[name] = getattr(options, name) or plan.info.get(name) or default
    return plan


def _plan_new(options: TrainOptions) -> _Plan:
    if options.env is None:
        raise ValueError("Name the environment to train in, or a run to continue: --resume DIR.")
    config = build_config(options)
    folder = RunFolder.new(options.out, options.env, config.seed)
    info = {"env": options.env, "seed": config.seed, "env_steps": 0, **_origin(options)}
    return _Plan(config, folder, None, options.env_steps or DEFAULT_ENV_STEPS, info)


def _plan_resumed(options: TrainOptions, resume: str) -> _Plan:
    for name in ("seed", "num_env_runners", "num_envs", "env_config", "settings"):
        if getattr(options, name) not in (None, {}):
            flag = {"settings": "set"}.get(name, name.replace("_", "-"))
            raise ValueError(f"--{flag} cannot be changed by --resume: a run keeps the settings in its checkpoint.")
    checkpoint, run = find_checkpoint(resume)
    config = load_config(checkpoint)
    if options.env is not None and options.env != config.env:
        raise ValueError(f"ENV is {options.env!r}, but {resume} was trained in {config.env!r}. Leave ENV out.")
    info: dict[str, Any] = {"env": str(config.env), "seed": config.seed, **_origin(options)}
    if run is not None:
        info = {
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
        folder = RunFolder.new(options.out, str(config.env), config.seed)
    return _Plan(config, folder, checkpoint, options.env_steps or info.get("env_steps") or DEFAULT_ENV_STEPS, info)


def _origin(options: TrainOptions) -> dict[str, Any]:
    return {"started": f"{datetime.now():%Y-%m-%d %H:%M:%S}", "argv": options.argv, "versions": versions()}


def local_ray(actors: int, address: str | None = None) -> contextlib.AbstractContextManager[None]:
    """`ray_at`, with a core for each of so many actors beside this process in a Ray of our own."""
    # Actors that find no free core would wait forever, so Ray is told of as many as they need.
    return ray_at(address, max(os.cpu_count() or 1, actors + 1))


@contextlib.contextmanager
def ray_at(address: str | None, num_cpus: int | None) -> Iterator[None]:
    """The Ray that this process has already, or that of a cluster, or one of our own until the end.

    Args:
        address: "HOST:PORT" of a cluster's head, or "auto" for the cluster that this machine is a part of; None: that of
            RAY_ADDRESS, if it is set, else a Ray of our own.
        num_cpus: Cores of a Ray of our own; None: those of the machine.

    Raises:
        ValueError: If no cluster answers there.
    """
    if ray.is_initialized():
        yield
        return
    if address is not None:
        check_address(address)
    own = address is None and not os.environ.get("RAY_ADDRESS")
    # "local", because without an address Ray would join the newest cluster of this machine.
    options = {"address": "local", "num_cpus": num_cpus, "include_dashboard": False} if own else {"address": address}
    try:
        ray.init(**options, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if own:
            raise
        where = f"--address {address}" if address else f"RAY_ADDRESS={os.environ['RAY_ADDRESS']}"
        raise ValueError(f"{where}: no Ray cluster answers there ({error}). {_START_ONE}") from error
    try:
        yield
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """Raises a ValueError unless the address is of a form that can work, and somebody listens there."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise ValueError(
            f"--address {address} is not allowed: it must be HOST:PORT of the cluster's head, or auto. From outside of the "
            "cluster, send the command there with `ray job submit`."
        )
    try:
        # Ray itself would try for minutes.
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ValueError(f"--address {address}: nobody listens there ({error}). {_START_ONE}") from error


# ------------------------------------------------------------------------------------------ doing it


def _train(algo: MADDPG, plan: _Plan, observer: Observer) -> RunSummary:
    env_steps = algo._env_steps
    if env_steps >= plan.total:
        raise ValueError(
            f"{plan.checkpoint} has {env_steps:,} env steps already. Give the total to train to, such as "
            f"`--env-steps {2 * env_steps}`."
        )
    folder = plan.folder
    folder.create(env_steps)
    folder.write_info(plan.info)
    write_params(folder.path, algo.config.to_dict())
    write_config(algo.config, folder.path / CONFIG_FILE)
    files = ResultFiles(folder.path)
    # RLlib's checkpoints hold the iteration, but not the time spent (seconds).
    earlier = [row for row in read_progress(folder.path) if float(row[NUM_ENV_STEPS_SAMPLED_LIFETIME]) <= env_steps]
    algo._time_total = float(earlier[-1]["time_total_s"]) if earlier else 0.0
    summary = RunSummary(folder.path, plan.checkpoint, env_steps)
    observer.started(folder.path, env_steps, plan.total)
    try:
        with _StopSignals(observer) as stop:
            _loop(algo, plan, observer, summary, files, stop)
            summary.stop_signal = stop.signal
    finally:
        files.close()
    with contextlib.suppress(ValueError):  # no finished episode yet, so nothing to draw
        save_learning_curve(folder.path, folder.path / CURVE_FILE, f"{plan.info['env']}, seed {plan.info['seed']}")
    return summary


def _loop(
    algo: MADDPG,
    plan: _Plan,
    observer: Observer,
    summary: RunSummary,
    files: ResultFiles,
    stop: _StopSignals,
) -> None:
    """Trains and saves; keeps `summary` up to date."""
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
            episode_length = result[ENV_RUNNER_RESULTS].get(EPISODE_LEN_MEAN, episode_length)
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
        with contextlib.suppress(Exception):
            if saved_at < summary.env_steps:
                save()
    if stop.signal is None and summary.error is None:
        episodes = min(_EVALUATION_EPISODES, int(_EVALUATION_ENV_STEPS / episode_length))
        summary.evaluation = evaluate_algorithm(algo, episodes) if episodes else None


class _StopSignals:
    """While entered, the first SIGINT or SIGTERM is noted in `signal`, the next one raises KeyboardInterrupt."""

    def __init__(self, observer: Observer):
        self.signal: int | None = None
        self._observer = observer
        self._old: dict[int, Any] = {}

    def __enter__(self) -> _StopSignals:
        # Python lets only the main thread set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *args: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        self._observer.stopping()
