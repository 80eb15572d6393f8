"""Searchers and schedulers of a sweep, as Tune takes them."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher

from rllib_maddpg.sweeps.schema import Sweep
from rllib_maddpg.sweeps.space import Axis
from rllib_maddpg.sweeps.trial_config import tune_path

ENV_STEPS = NUM_ENV_STEPS_SAMPLED_LIFETIME


class SeedsOfAPoint(Searcher):
    """Lets a searcher try each of its points with several seeds and tells it their mean.

    Tune's `Repeater` would put a key of its own into the config, and give a missing result the value NaN. A point is told when
    all of its seeds are through, with the mean of those that have a result.

    Args:
        searcher: Suggests the points.
        seeds: Of each point.
    """

    def __init__(self, searcher: Searcher, seeds: list[int]):
        super().__init__(metric=searcher.metric, mode=searcher.mode)
        self.searcher = searcher  # under this name Tune looks for what it has to save
        self._seeds = list(seeds)
        self._points: dict[str, dict[str, float | None]] = {}  # id of the first trial -> trial -> score
        self._point_of: dict[str, str] = {}  # trial -> id of the first trial
        self._current: tuple[str, dict[str, Any], list[int]] | None = None  # id, config, seeds left

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._current is None:
            config = self.searcher.suggest(trial_id)
            if config is None or config == Searcher.FINISHED:
                return config
            self._current = trial_id, config, list(self._seeds)
            self._points[trial_id] = {}
        point, config, seeds = self._current
        self._point_of[trial_id] = point
        seed = seeds.pop(0)
        if not seeds:
            self._current = None
        return {**copy.deepcopy(config), "seed": seed}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: a searcher without a pruner learns from the end of a trial."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if trial_id not in self._point_of:
            return
        point = self._point_of[trial_id]
        value = (result or {}).get(self.searcher.metric)
        scores = self._points[point]
        scores[trial_id] = value if isinstance(value, (int, float)) and math.isfinite(value) else None
        if len(scores) == len(self._seeds):
            known = [score for score in scores.values() if score is not None]
            mean = {self.searcher.metric: float(np.mean(known))} if known else None
            self.searcher.on_trial_complete(point, mean, error=not known)

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        done = self.searcher.set_search_properties(metric, mode, config, **spec)
        self._metric, self._mode = self.searcher.metric, self.searcher.mode
        return done

    def get_state(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "searcher"}

    def set_state(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def save(self, checkpoint_path: str) -> None:
        self.searcher.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        self.searcher.restore(checkpoint_path)


class RaceFreePBT(PopulationBasedTraining):
    """Tune's PBT, without two races between a trial that saves itself to pause and the one whose result ends the interval.

    A trial of the upper quantile that is still saving then would be told to save once more. Tune forgets the second checkpoint
    when the trial pauses and gives its folder to the next one: whoever clones it late begins with a state of the future, and
    the population waits for ever for a result that was passed over. A trial of the lower quantile that is still saving would
    keep a note to stop after its save, which ends it at its next checkpoint.
    """

    def _checkpoint_or_exploit(
        self, trial: Trial, tune_controller: Any, upper_quantile: list[Trial], lower_quantile: list[Trial]
    ) -> None:
        if trial in upper_quantile and trial.is_saving:
            self._trial_state[trial].last_checkpoint = trial.temporary_state.saving_to
            self._num_checkpoints += 1
            return
        super()._checkpoint_or_exploit(trial, tune_controller, upper_quantile, lower_quantile)

    def _exploit(self, tune_controller: Any, trial: Trial, trial_to_clone: Trial) -> None:
        super()._exploit(tune_controller, trial, trial_to_clone)
        # Tune takes such a note back before the pause, which writes it again.
        tune_controller._tune_controller._cached_trial_decisions.pop(trial.trial_id, None)


class WithinBounds:
    """Moves what PBT has multiplied out of the search space back to its end.

    Args:
        axes: The search space.
    """

    def __init__(self, axes: list[Axis]):
        self._axes = axes

    def __call__(self, config: dict[str, Any]) -> dict[str, Any]:
        for axis in self._axes:
            config[axis.key] = axis.clamp(config[axis.key])
        return config


def make_searcher(sweep: Sweep) -> SearchAlgorithm | Searcher:
    """The search algorithm.

    Raises:
        ValueError: If Optuna is not installed.
    """
    seed = sweep.search_options.get("seed", 0)
    if sweep.search != "optuna":
        # All seeds of a point, and all values of a grid, get the same random draw; members of a population do not.
        same = sweep.scheduler != "pbt"
        # Here and not in `TuneConfig`, which knows how to limit searchers of another kind only.
        limit = sweep.max_concurrent or 0
        return BasicVariantGenerator(constant_grid_search=same, random_state=seed, max_concurrent=limit)
    try:
        import optuna
    except ImportError as error:
        raise sweep.file.error(("search",), f"Optuna is not installed: pip install rllib-maddpg[tune] ({error}).") from error
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    startup = sweep.search_options.get("startup_points", min(10, max(1, sweep.num_samples // 3)))
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
    return SeedsOfAPoint(OptunaSearch(sampler=sampler), sweep.seeds)


def make_scheduler(sweep: Sweep) -> TrialScheduler:
    """The scheduler; all of its times are env steps."""
    options = sweep.scheduler_options
    if sweep.scheduler == "asha":
        return AsyncHyperBandScheduler(
            time_attr=ENV_STEPS,
            max_t=sweep.env_steps,
            grace_period=options.get("grace_env_steps", max(1, sweep.env_steps // 10)),
            reduction_factor=options.get("reduction_factor", 3),
        )
    if sweep.scheduler == "pbt":
        return RaceFreePBT(
            time_attr=ENV_STEPS,
            perturbation_interval=perturb_every(sweep),
            hyperparam_mutations={axis.key: axis.mutation() for axis in sweep.axes},
            quantile_fraction=options.get("quantile_fraction", 0.25),
            resample_probability=options.get("resample_probability", 0.25),
            synch=options.get("synch", True),
            custom_explore_fn=WithinBounds(sweep.axes),
        )
    return FIFOScheduler()


def perturb_every(sweep: Sweep) -> int:
    """Env steps from one exploit of PBT to the next."""
    return sweep.scheduler_options.get("perturb_every", max(1, sweep.env_steps // 10))


def tune_num_samples(sweep: Sweep) -> int:
    """Tune's `num_samples`: it counts trials for Optuna, else draws, each of which makes the whole grid."""
    return sweep.num_samples * len(sweep.seeds) if sweep.search == "optuna" else sweep.num_samples


def swept_value(config: dict[str, Any], key: str) -> Any:
    """The value of a swept key in the config of a trial."""
    value: Any = config
    for part in tune_path(key):
        value = value[part]
    return value
