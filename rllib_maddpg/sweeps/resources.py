"""What a trial needs, what the machine or cluster has, and how many trials share a GPU or a Learner."""

from __future__ import annotations

import math
from dataclasses import dataclass

import ray
from ray.tune import PlacementGroupFactory

from rllib_maddpg.config.maddpg_config import MADDPGConfig
from rllib_maddpg.sweeps.schema import LEARNER, SHARED, Sweep

AUTO = "auto"
_GPUS = ("resources", "num_gpus_per_learner")


@dataclass(frozen=True)
class Placement:
    """How trials are placed.

    Attributes:
        num_gpus_per_learner: For the config of each trial.
        cpus: Of one trial.
        concurrent: Trials that run at the same time.
        shared_gpus: GPUs of the Learner that all trials share, 0 or 1; None: each trial has its own Learner.
    """

    num_gpus_per_learner: float
    cpus: float
    concurrent: int
    shared_gpus: int | None = None


def check_resources(sweep: Sweep) -> None:
    """Checks the section `resources` as far as no Ray is needed."""
    file = sweep.file
    if sweep.shares_learner and "num_gpus_per_learner" in sweep.resources:
        fix = "Leave it out: no trial has a GPU then, and the shared Learner takes one where there is one."
        raise file.error(_GPUS, f"this cannot stand beside `{LEARNER}: {SHARED}`. {fix}")
    share = sweep.resources.get("num_gpus_per_learner", 0)
    number = isinstance(share, (int, float)) and not isinstance(share, bool) and share >= 0
    if share != AUTO and not (number and (share < 1 or share == int(share))):
        raise file.error(_GPUS, f"{share!r} must be `auto`, 0, a fraction of one GPU such as 0.25, or a whole number.")
    cpus = sweep.resources.get("cpus", 1)
    if not isinstance(cpus, int) or isinstance(cpus, bool) or cpus < 1:
        raise file.error(("resources", "cpus"), f"{cpus!r} must be a whole number > 0: cores that trials may share.")


def place(sweep: Sweep, config: MADDPGConfig) -> Placement:
    """Finds how many trials run at once, and each one's share of a GPU; needs Ray.

    Args:
        sweep: The sweep.
        config: Of one of its trials.

    Raises:
        ValueError: If a trial needs more than there is: Ray would wait for it forever.
    """
    has = ray.cluster_resources()
    cpus, gpus = has.get("CPU", 0.0), has.get("GPU", 0.0)
    share = sweep.resources.get("num_gpus_per_learner", 0)
    learners = config.num_learners or 1
    if share == AUTO:
        needed = _bundles(config, 1.0 if gpus else 0.0)
        share = auto_share(gpus, _concurrent(sweep, _sum(needed, "CPU"), cpus), learners) if gpus else 0
    elif share and share * learners > gpus:
        fix = "Write `auto`, which takes a GPU where there is one, or 0."
        raise sweep.file.error(_GPUS, f"{share!r} for {learners} Learner(s) in each trial, but Ray has {gpus:g} GPUs. {fix}")
    bundles = _bundles(config, float(share))
    need = _sum(bundles, "CPU")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for name, there in (("CPU", cpus), ("GPU", gpus)):
        largest = max(bundle.get(name, 0) for bundle in bundles)
        largest_node = max((node.get(name, 0) for node in nodes), default=0)
        if _sum(bundles, name) > there or largest > largest_node:
            asked = f"a trial needs {_sum(bundles, name):g} {name}s (one process of it: {largest:g})"
            fix = "Lower `num_env_runners` or `num_learners`, or set `resources: {cpus: N}` to let processes share cores."
            place_ = ("resources", "num_env_runners") if name == "CPU" else _GPUS
            found = f"Ray has {there:g}, the largest node {largest_node:g}"
            raise sweep.file.error(place_, f"{asked}, but {found}: it would wait forever. {fix}")
    concurrent = _concurrent(sweep, need, cpus)
    if share:
        concurrent = min(concurrent, max(1, int(gpus / (share * learners) + 1e-9)))
    return Placement(float(share), need, concurrent, int(gpus >= 1) if sweep.shares_learner else None)


def auto_share(gpus: float, trials: int, learners: int = 1) -> float:
    """The share of a GPU for each Learner such that `trials` trials, each with so many Learners, fit on `gpus` GPUs.

    1 where there is a GPU for each; else 1/n, n Learners to a GPU.
    """
    per_gpu = math.ceil(trials * learners / gpus)
    # Ray counts in ten thousandths; rounded down, so that n of them fit.
    return 1.0 if per_gpu <= 1 else math.floor(10_000 / per_gpu) / 10_000


def _concurrent(sweep: Sweep, cpus_per_trial: float, cpus: float) -> int:
    fit = int(cpus // cpus_per_trial) if cpus_per_trial else sweep.num_trials
    return max(1, min(fit, sweep.num_trials, sweep.max_concurrent or fit))


def _bundles(config: MADDPGConfig, share: float) -> list[dict[str, float]]:
    asking = config.copy(copy_frozen=False)
    asking.learners(num_gpus_per_learner=share)
    factory: PlacementGroupFactory = config.algo_class.default_resource_request(asking)
    return factory.bundles


def _sum(bundles: list[dict[str, float]], name: str) -> float:
    return sum(bundle.get(name, 0) for bundle in bundles)
