"""What a sweep's YAML file may hold, read into a `Sweep` and checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rllib_maddpg.config.config_file import ALGORITHM, DEFAULT_ALGORITHM
from rllib_maddpg.config.kinds import is_number
from rllib_maddpg.config.maddpg_config import MADDPGConfig
from rllib_maddpg.config.require import is_whole
from rllib_maddpg.config.yaml_file import YamlFile
from rllib_maddpg.envs.errors import did_you_mean
from rllib_maddpg.sweeps.space import SECTION, Axis, read_axes

KEYS = {
    "env": "name of the environment, as in `rllib-maddpg train`",
    "env_config": "its settings",
    ALGORITHM: "MADDPG, another member of its family, or package.module:Class; several of them under `search_space`",
    "settings": "fixed settings of MADDPGConfig or RLlib; dots lead into dicts",
    SECTION: "key: {grid: [...]}, {loguniform: [low, high]}, ...",
    "seeds": "each point is trained once with each, and ranked by the mean",
    "search": "grid, random or optuna; or {type: ..., seed: ...}",
    "scheduler": "fifo, asha or pbt; or {type: ..., and its options}",
    "num_samples": "points to draw (random, optuna), or members of a population for each seed (pbt)",
    "metric": "of the training results, such as env_runners/episode_return_mean",
    "mode": "max or min",
    "stop": "{env_steps: N}",
    "max_concurrent": "trials at the same time",
    "checkpoint_every": "env steps",
    "keep_checkpoints": "the newest N of each trial stay",
    "resources": "learner (own or shared), num_env_runners, num_learners, num_gpus_per_learner (number or auto), cpus",
}
SEARCHES = {"grid": (), "random": ("seed",), "optuna": ("seed", "startup_points")}
SCHEDULERS = {
    "fifo": (),
    "asha": ("grace_env_steps", "reduction_factor"),
    "pbt": ("perturb_every", "quantile_fraction", "resample_probability", "synch"),
}
LEARNER = "learner"
OWN, SHARED = "own", "shared"
RESOURCES = (LEARNER, "num_env_runners", "num_learners", "num_gpus_per_learner", "cpus")
DEFAULT_METRIC = "env_runners/episode_return_mean"
DEFAULT_ITERATION = MADDPGConfig.table()["min_sample_timesteps_per_iteration"].default  # env steps


@dataclass
class Sweep:
    """A sweep as its file describes it.

    Attributes:
        file: For error messages.
        env, env_config, settings: What all trials share.
        algorithm: That of all trials, unless it is swept over; see `algorithms`.
        axes: The search space.
        seeds: Of each point.
        search, scheduler: Names; their options are in `search_options` and `scheduler_options`.
        num_samples: Points that are drawn; 1 for a grid.
        metric, mode: What is ranked.
        env_steps: Of each trial.
        max_concurrent: Trials at the same time; None: as many as the machine has room for.
        checkpoint_every: Env steps.
        keep_checkpoints: Of each trial.
        resources: As in the file.
    """

    file: YamlFile
    env: Any
    env_config: dict[str, Any]
    settings: dict[str, Any]
    axes: list[Axis]
    seeds: list[int]
    search: str
    search_options: dict[str, Any]
    scheduler: str
    scheduler_options: dict[str, Any]
    num_samples: int
    metric: str
    mode: str
    env_steps: int
    max_concurrent: int | None
    checkpoint_every: int
    keep_checkpoints: int
    resources: dict[str, Any] = field(default_factory=dict)
    algorithm: str = DEFAULT_ALGORITHM

    @property
    def algorithms(self) -> list[str]:
        """Those that its trials may have."""
        return next((list(axis.args) for axis in self.axes if axis.key == ALGORITHM), [self.algorithm])

    @property
    def shares_learner(self) -> bool:
        """Whether all trials have their Learners in one actor."""
        return self.resources.get(LEARNER, OWN) == SHARED

    @property
    def iteration(self) -> int:
        """Env steps between two results of a trial: short enough for its checkpoints and its scheduler."""
        own = self.settings.get("min_sample_timesteps_per_iteration")
        if own is not None:
            return int(own)
        options = self.scheduler_options
        return min(DEFAULT_ITERATION, self.checkpoint_every, *options_env_steps(options), self.env_steps)

    @property
    def num_points(self) -> int:
        """Points in the search space that are tried."""
        return self.num_samples * math.prod(len(axis.args) for axis in self.axes if axis.is_grid)

    @property
    def num_trials(self) -> int:
        """Training runs in all."""
        return self.num_points * len(self.seeds)

    @property
    def ranks_seeds_together(self) -> bool:
        """Whether trials that differ in the seed alone are one point; under PBT each goes its own way."""
        return self.scheduler != "pbt"


def options_env_steps(options: dict[str, Any]) -> list[int]:
    """Those options of a scheduler that are times."""
    return [options[key] for key in ("grace_env_steps", "perturb_every") if key in options]


def read_sweep(path: str | Path, num_samples: int | None = None, max_concurrent: int | None = None) -> Sweep:
    """Reads and checks the file; the arguments override what it says.

    What needs the environment or the config of a trial is checked in `trial_config`, what needs Ray in `resources`.

    Raises:
        ValueError: Naming file, line, key, and the fix.
    """
    file = YamlFile(path)
    data = file.data
    file.check_keys((), data, KEYS, "a sweep")
    if "env" not in data:
        raise file.error((), "`env` is missing. Name the environment, such as `env: simple_spread`.")
    for key in ("env_config", "settings"):
        if not isinstance(data.get(key) or {}, dict):
            raise file.error((key,), f"{data[key]!r} must be keys and values.")
    seeds = _seeds(file, data.get("seeds", [0]))
    # Seeds of one configuration are a sweep, too.
    axes = read_axes(file) if data.get(SECTION) or len(seeds) == 1 else []
    # A key such as `1` or `yes` is no string in YAML.
    settings = {str(key): value for key, value in (data.get("settings") or {}).items()}
    for axis in axes:
        if axis.key in settings:
            raise file.error(("settings", axis.key), f"this key is swept over under `{SECTION}`, too. Keep one of the two.")
    search, search_options = _choice(file, "search", "grid", SEARCHES)
    scheduler, scheduler_options = _choice(file, "scheduler", "fifo", SCHEDULERS)
    stop = data.get("stop")
    file.check_keys(("stop",), {} if stop is None else stop, ("env_steps",), "`stop`")
    env_steps = _whole(file, ("stop", "env_steps"), (stop or {}).get("env_steps"), None)
    resources = data.get("resources") or {}
    file.check_keys(("resources",), resources, RESOURCES, "`resources`")
    learner = resources.get(LEARNER, OWN)
    if learner not in (OWN, SHARED):
        hint = did_you_mean(str(learner), (OWN, SHARED))
        raise file.error(("resources", LEARNER), f"{learner!r} must be {SHARED} (one for all trials) or {OWN}.{hint}")
    mode = data.get("mode", "max")
    if mode not in ("max", "min"):
        raise file.error(("mode",), f"{mode!r} must be max or min.")
    sweep = Sweep(
        file=file,
        env=data["env"],
        env_config=dict(data.get("env_config") or {}),
        settings=settings,
        axes=axes,
        seeds=seeds,
        search=search,
        search_options=search_options,
        scheduler=scheduler,
        scheduler_options=scheduler_options,
        num_samples=num_samples or _whole(file, ("num_samples",), data.get("num_samples"), 1),
        metric=data.get("metric", DEFAULT_METRIC),
        mode=mode,
        env_steps=env_steps,
        max_concurrent=max_concurrent or _whole(file, ("max_concurrent",), data.get("max_concurrent"), 0) or None,
        checkpoint_every=_whole(file, ("checkpoint_every",), data.get("checkpoint_every"), max(env_steps // 20, 1)),
        keep_checkpoints=_whole(file, ("keep_checkpoints",), data.get("keep_checkpoints"), 2),
        resources=dict(resources),
        algorithm=data.get(ALGORITHM, DEFAULT_ALGORITHM),
    )
    iteration, key = settings.get("min_sample_timesteps_per_iteration"), ("settings", "min_sample_timesteps_per_iteration")
    if iteration is not None and not is_whole(iteration, 1):
        raise file.error(
            key, f"{iteration!r} must be a whole number of env steps > 0: checkpoints are made between iterations."
        )
    _check_scheduler(sweep)
    _check_search(sweep)
    return sweep


def _choice(file: YamlFile, key: str, default: str, known: dict[str, tuple]) -> tuple[str, dict[str, Any]]:
    """A word, or a mapping of `type` and the options of that type."""
    value = file.data.get(key, default)
    options = {str(k): v for k, v in value.items()} if isinstance(value, dict) else {"type": value}
    name, path = options.pop("type", None), ((key, "type") if isinstance(value, dict) else (key,))
    if not isinstance(name, str) or name not in known:
        raise file.error(path, f"{name!r} must be one of {', '.join(known)}.{did_you_mean(str(name), known)}")
    for option in options:
        if option not in known[name]:
            hint = did_you_mean(option, known[name]) or f" There are: {', '.join(known[name]) or 'none'}."
            raise file.error((key, option), f"this is no option of {name}.{hint}")
    return name, options


def _seeds(file: YamlFile, seeds: Any) -> list[int]:
    ok = isinstance(seeds, list) and seeds and all(is_whole(seed, 0) for seed in seeds)
    if not ok or len(set(seeds)) < len(seeds):
        raise file.error(("seeds",), f"{seeds!r} must be a list of different whole numbers >= 0, such as [0, 1, 2].")
    return list(seeds)


def _whole(file: YamlFile, path: tuple[str, ...], value: Any, default: int | None) -> int:
    if value is None:
        if default is None:
            raise file.error(path, "this is missing. Say when a trial is over, such as `stop: {env_steps: 100000}`.")
        return default
    if not is_whole(value, 1):
        raise file.error(path, f"{value!r} must be a whole number > 0.")
    return value


def _check_search(sweep: Sweep) -> None:
    file = sweep.file
    grids = [axis for axis in sweep.axes if axis.is_grid]
    seed = sweep.search_options.get("seed", 0)
    if not is_whole(seed, 0):
        raise file.error(("search", "seed"), f"{seed!r} must be a whole number >= 0.")
    if sweep.scheduler == "pbt":
        if sweep.search == "optuna":
            raise file.error(("search",), "optuna cannot search where pbt changes the settings of a trial. Use `random`.")
        if grids:
            key = (SECTION, grids[0].key)
            raise file.error(key, "pbt mutates values and has no use for a grid. Use `choice` or a range.")
        if not sweep.axes:
            raise file.error(("scheduler",), f"pbt has nothing to mutate: `{SECTION}` is empty. Name keys there.")
        return
    if sweep.search == "grid":
        for axis in sweep.axes:
            if not axis.is_grid:
                fix = "Use `{grid: [...]}` here, or `search: random` or `optuna`."
                raise file.error((SECTION, axis.key), f"a grid search cannot take `{axis.kind}`. {fix}")
        if sweep.num_samples > 1:
            fix = "Give more `seeds` to repeat each point."
            raise file.error(("num_samples",), f"{sweep.num_samples} times the same grid would give the same runs. {fix}")
    if sweep.search == "random" and len(grids) == len(sweep.axes) and sweep.num_samples > 1:
        raise file.error(("search",), "there is nothing to draw: all keys have a grid. Use `search: grid` and `seeds`.")
    if sweep.search == "optuna":
        if not sweep.axes:
            raise file.error(("search",), f"optuna has nothing to search: `{SECTION}` is empty. Use `search: grid`.")
        if grids:
            fix = "Use `choice` here, or `search: grid`, or `search: random`, which takes both."
            raise file.error((SECTION, grids[0].key), f"optuna cannot take a grid. {fix}")
        for axis in sweep.axes:
            if axis.kind == "qloguniform":
                raise file.error((SECTION, axis.key), "optuna has no steps in a logarithmic range. Use `loguniform`.")
            if axis.kind == "choice" and any(isinstance(value, (list, dict)) for value in axis.args):
                fix = "Use `search: random`."
                raise file.error((SECTION, axis.key), f"optuna chooses among numbers and words, not lists. {fix}")
        startup = sweep.search_options.get("startup_points", 1)
        if not is_whole(startup, 1):
            raise file.error(("search", "startup_points"), f"{startup!r} must be a whole number > 0.")


def _check_scheduler(sweep: Sweep) -> None:
    file, options = sweep.file, sweep.scheduler_options

    def check(name: str, ok: bool, allowed: str) -> None:
        if not ok:
            raise file.error(("scheduler", name), f"{options[name]!r} must be {allowed}.")

    for name, value in options.items():
        if name in ("grace_env_steps", "perturb_every"):
            ok = is_whole(value, 1) and value <= sweep.env_steps
            check(name, ok, f"a whole number of env steps, at most `stop.env_steps` = {sweep.env_steps}")
        elif name == "reduction_factor":
            check(name, is_number(value) and value > 1, "a number > 1: of so many trials one goes on")
        elif name == "quantile_fraction":
            check(name, is_number(value) and 0 < value <= 0.5, "in (0, 0.5]: this share of the population is replaced")
        elif name == "resample_probability":
            check(name, is_number(value) and 0 <= value <= 1, "in [0, 1]")
        elif name == "synch":
            check(name, isinstance(value, bool), "true or false")
    if sweep.scheduler == "pbt":
        if sweep.num_trials < 2:
            raise file.error(("num_samples",), "pbt needs a population: give `num_samples` or `seeds` of 2 or more, better 4.")
        if sweep.max_concurrent and sweep.max_concurrent < sweep.num_trials:
            fix = "Leave it out: members take turns where there are fewer cores."
            text = f"{sweep.max_concurrent} is less than the population of {sweep.num_trials}, which pbt must know whole. {fix}"
            raise file.error(("max_concurrent",), text)
