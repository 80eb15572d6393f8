"""Part `shared`: many trials with one Learner for all, against the same trials with a Learner each; and slots in one pass.

Trials are real algorithms in Ray actors, which is what Tune makes of them, and all call `algo.train()` at the same time. Tune
itself is left out: it starts and ends trials, writes results and checkpoints in between, and no two windows would be alike.
Both kinds are alive at the same time and train in turn, within one call, so a change of the machine's load meets both. What is
counted lies in a window in which all trials train (`Trials.measure`): no start of a process, and no end of the last trial.

On a GPU a trial with its own Learner has its share of it as with Tune's fractions: its process has a context and graphs, and
its rows lie on the GPU. That is the best that there is without a shared Learner.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from statistics import median
from typing import Any

from benchmarks.compare import Claim, Contender, Table, ratio
from benchmarks.devices import config_on_device
from benchmarks.games import make_config
from benchmarks.options import Options
from benchmarks.scaling import ENV_STEPS, RATIOS, UPDATES
from benchmarks.slots import measure_slots
from benchmarks.trials import Trials
from rllib_maddpg.config.maddpg_config import MADDPGConfig
from rllib_maddpg.shared.life import SharedLearner

OWN, SHARED = "a Learner each", "one shared Learner"
DOES = {
    OWN: "algo.train() in a process for each trial, all at the same time",
    SHARED: "the same with shared_learner: the updates are made in one more process, rows lie there",
}
# Unit in which each ratio of env steps to updates is compared.
COMPARED = dict(zip(RATIOS, (ENV_STEPS, UPDATES), strict=True))
# (device, ratio) -> least ratio of shared to own.
LEAST = {("cpu", RATIOS[0]): 0.95, ("cuda", RATIOS[1]): 5.0}
# Windows are so many times `seconds`: a trial's iteration takes a second where many share a core.
WINDOW, LEAST_SECONDS = 10, 0.5
# Of each trial, for the wall time of a whole sweep.
SWEEP = 100_000
NAME = "benchmarks"


def measure_shared(scenario: str, options: Options) -> Iterator[dict[str, Any]]:
    """A curve and a table of slots; then a table for each ratio of env steps to updates, as soon as it is measured."""
    yield from measure_slots(scenario, options)
    on_gpu = options.device == "cuda"
    seeds = range(options.trials)
    with contextlib.ExitStack() as stack:
        # Both kinds are alive, and Ray gives no GPU away twice: half of it is for each.
        shared = stack.enter_context(SharedLearner(NAME, num_gpus=0.5 if on_gpu else 0))
        gpus = 0.5 / options.trials if on_gpu else 0.0
        trials = {}
        for name, configs, of_one in (
            (OWN, [own_config(scenario, options, seed) for seed in seeds], gpus),
            (SHARED, [shared_config(scenario, options, seed, shared.name) for seed in seeds], 0.0),
        ):
            trials[name] = Trials(configs, options.torch_threads, of_one)
            stack.callback(trials[name].stop)
        for env_steps, unit in COMPARED.items():
            for group in trials.values():
                group.set_ratio(env_steps)
            before = shared.status()
            rounds = _rounds(trials, options)
            notes = [*_notes(rounds, trials, unit), _status_text(before, shared.status())]
            yield _table(scenario, options, env_steps, unit, rounds, notes)


def own_config(scenario: str, options: Options, seed: int) -> MADDPGConfig:
    """Of a trial that has its own Learner."""
    config = config_on_device(scenario, options.device, **_sizes(options)).debugging(seed=seed)
    return config.learners(num_gpus_per_learner=1 / options.trials) if options.device == "cuda" else config


def shared_config(scenario: str, options: Options, seed: int, name: str) -> MADDPGConfig:
    """Of a trial in the shared Learner of this name."""
    return make_config(scenario, **_sizes(options)).debugging(seed=seed).learners(shared_learner=name)


def _sizes(options: Options) -> dict[str, int]:
    return {"num_envs": options.num_envs, "batch": options.batch, "rows": options.rows}


def _rounds(trials: dict[str, Trials], options: Options) -> dict[str, list[dict[str, float]]]:
    """What each round has brought to each; a first round is thrown away."""
    seconds = max(WINDOW * options.seconds, LEAST_SECONDS)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in trials}
    for number in range(options.repeats + 1):
        for name, group in trials.items():
            measured = group.measure(seconds)
            if number:
                rounds[name].append(measured)
    return rounds


def _table(
    scenario: str, options: Options, env_steps: int, unit: str, rounds: dict[str, list[dict[str, float]]], notes: list[str]
) -> dict[str, Any]:
    values = {name: [measured[unit] for measured in own] for name, own in rounds.items()}
    contenders = [Contender(name, DOES[name], lambda: 0.0) for name in rounds]
    sizes = f"{options.num_envs} envs each, {options.batch:,} rows an update, {options.device}"
    setting = f"{scenario}, {options.trials} trials, {sizes}, an update each {env_steps} env steps"
    claims: list[Claim] = [ratio(values, SHARED, OWN, at_least=LEAST.get((options.device, env_steps)))]
    return Table("shared", "Trials at the same time", setting, unit, contenders, values, claims, notes).to_dict()


def _notes(rounds: dict[str, list[dict[str, float]]], trials: dict[str, Trials], unit: str) -> list[str]:
    (other,) = {ENV_STEPS, UPDATES} - {unit}
    meanwhile = ", ".join(f"{name} {median(m[other] for m in own):,.0f}" for name, own in rounds.items())
    seconds = []
    for name, group in trials.items():
        rate = median(measured[ENV_STEPS] for measured in rounds[name])
        whole = group.start_up + SWEEP * len(group) / rate
        seconds.append(f"{name} {whole:,.0f} s ({group.start_up:.0f} s of them until all learn)")
    how = f"Wall time until all have made {SWEEP:,} env steps, by their start, measured once, and this rate"
    return [f"{other} meanwhile: {meanwhile}.", f"{how}: {', '.join(seconds)}."]


def _status_text(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What the shared Learner says of these rounds."""
    passes, updates = (after[key] - before[key] for key in ("passes", "updates"))
    return f"In the shared Learner meanwhile: {updates:,} updates in {passes:,} passes, {updates / max(passes, 1):.1f} a pass."
