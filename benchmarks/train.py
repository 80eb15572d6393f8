"""Part `train`: env steps per second of whole training, and where its time goes, against the bare environment."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

from benchmarks.compare import Contender, Table, absolute, measure_in_turn, ratio, seconds_per_unit
from benchmarks.games import BareLoop, built, make_config
from benchmarks.options import Options
from benchmarks.shares import DOES, ELSE, shares
from rllib_maddpg.algorithm.maddpg import MADDPG

BARE, ONE, TWO = "bare loop", "ours, one process", "ours, one remote runner"
# Iterations after which learning must have started.
_WARM_UP = 1000


def measure_train(scenario: str, options: Options) -> list[dict[str, Any]]:
    """Two tables: env steps per second, and the shares of the wall time of one process."""
    bare = BareLoop(scenario)
    sizes = {"num_envs": options.num_envs, "batch": options.batch, "rows": options.rows}
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(built(make_config(scenario, **sizes)))
        two = stack.enter_context(built(make_config(scenario, **sizes, num_env_runners=1)))
        for algo in (one, two):
            warm_up(algo)
        contenders = [
            Contender(BARE, f"{bare.does}, nothing learns", lambda: 1 / seconds_per_unit(bare.run, options.seconds)),
            Contender(
                ONE,
                f"algo.train() with num_env_runners=0: an update each {one.config.num_env_steps_per_update:g} env steps",
                lambda: trained_per_second(one, options.seconds),
            ),
            Contender(
                TWO,
                "the same with num_env_runners=1: a second process samples, on a core of its own if there is one",
                lambda: trained_per_second(two, options.seconds),
            ),
        ]
        values = measure_in_turn(contenders, options.repeats)
        setting = f"{scenario}, {options.num_envs} envs, {options.batch:,} rows an update"
        claims = [ratio(values, ONE, BARE, at_least=1.0), ratio(values, TWO, BARE, at_least=1.5)]
        speed = Table("train", "Training", setting, "env steps/s", contenders, values, claims)
        return [speed.to_dict(), _shares_table(setting, one, options).to_dict()]


def _shares_table(setting: str, algo: MADDPG, options: Options) -> Table:
    rounds = [shares(algo, options.seconds) for _ in range(options.repeats)]
    # Measured all at once, so there is nothing to call for each.
    contenders = [Contender(name, does, lambda: 0.0) for name, does in DOES.items()]
    values = {name: [share[name] for share in rounds] for name in DOES}
    claims = [absolute(values, ELSE, at_most=15.0)]
    return Table("train", "Shares of one process's time", setting, "% of wall time", contenders, values, claims)


def warm_up(algo: MADDPG) -> None:
    """Trains until learning has started."""
    for _ in range(_WARM_UP):
        if algo.train().get(LEARNER_RESULTS):
            return
    raise RuntimeError(f"No update was made in {_WARM_UP} iterations.")


def trained_per_second(algo: MADDPG, seconds: float) -> float:
    """Env steps per second of `algo.train()`, from a standing start: what waited since the last call is used up first."""
    begin = env_steps_of(algo.train())
    start = time.perf_counter()
    while True:
        env_steps = env_steps_of(algo.train())
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return (env_steps - begin) / elapsed


def env_steps_of(result: dict[str, Any]) -> int:
    """Env steps of an algorithm's whole life."""
    return int(result[ENV_RUNNER_RESULTS][NUM_ENV_STEPS_SAMPLED_LIFETIME])
