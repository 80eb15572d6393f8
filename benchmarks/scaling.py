"""Part `train` on a GPU: env steps and updates per second with more and more env runners. On a CPU, `--runners` asks for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from ray.rllib.utils.metrics import ALL_MODULES, LEARNER_RESULTS

from benchmarks.compare import Contender, Table, ratio, summary
from benchmarks.devices import config_on_device
from benchmarks.games import built
from benchmarks.growth import exponent
from benchmarks.options import FRAGMENT, SCALING, Options
from benchmarks.train import env_steps_of, warm_up
from rllib_maddpg.algorithm.maddpg import MADDPG

# Env steps of an update: the default, and ten times as many updates.
RATIOS = (100, 10)
ENV_STEPS, UPDATES, BUSY = "env steps/s", "updates/s", "% busy"
TITLES = {ENV_STEPS: "Env steps of training", UPDATES: "Updates of training"}
# With 14 runners at `RATIOS[0]`, as a ratio to one.
MOST, LEAST_RATIO = 14, 8.0


def runners_of(options: Options) -> tuple[int, ...]:
    """Numbers of env runners to be measured, rising."""
    return tuple(sorted(set(options.runners or SCALING)))


def actors_of(options: Options) -> int:
    """Actors that are alive at the same time, for all that are compared take turns."""
    return sum(runners_of(options))


def measure_scaling(scenario: str, options: Options) -> Iterator[dict[str, Any]]:
    """For each ratio of env steps to updates two tables, as soon as they are measured; then two curves of all of them.

    At last two tables of the fewest and the most runners with long fragments.

    All algorithms are there at once and train in turn; those that wait take no time of the machine.
    """
    found: dict[int, dict[int, list[dict[str, float]]]] = {}
    setting = f"{scenario}, {options.num_envs} envs a runner, {options.batch:,} rows an update, {options.device}"
    runners = runners_of(options)
    with contextlib.ExitStack() as stack:
        algos = {}
        for n in runners:
            given = {"num_envs": options.num_envs, "batch": options.batch, "rows": options.rows, "num_env_runners": n}
            config = config_on_device(scenario, options.device, **given)
            algos[n] = stack.enter_context(built(config))
            warm_up(algos[n])
        for env_steps in RATIOS:
            for algo in algos.values():
                set_ratio(algo, env_steps)
            found[env_steps] = _rounds(algos, options)
            yield from _tables(f"{setting}, an update each {env_steps} env steps", found[env_steps], env_steps)
        yield from _curves(setting, found)
        # With many runners the driver has a fragment of theirs to handle for each few env steps.
        ends = {n: algos[n] for n in dict.fromkeys((runners[0], runners[-1]))}
        for algo in ends.values():
            set_ratio(algo, RATIOS[0], FRAGMENT)
        how = f"an update each {RATIOS[0]} env steps, fragments of {FRAGMENT} env steps of each env"
        yield from _tables(f"{setting}, {how}", _rounds(ends, options), None)


def _curves(setting: str, found: dict[int, dict[int, list[dict[str, float]]]]) -> Iterator[dict[str, Any]]:
    for unit in (ENV_STEPS, UPDATES):
        lines = []
        for env_steps, rounds in found.items():
            points = [summary([measured[unit] for measured in own]) for own in rounds.values()]
            grows = exponent(list(rounds), [p["median"] for p in points])
            name = f"an update each {env_steps} env steps"
            lines.append({"name": name, "does": DOES[unit], "exponent": grows, "points": points})
        fixed = {"title": TITLES[unit], "x_name": "env runners", "unit": unit, "setting": setting}
        yield {**fixed, "x": list(rounds), "lines": lines, "not_a_ratio": True}


DOES = {
    ENV_STEPS: "algo.train() with so many remote env runners, pipelined, default fragments unless said otherwise",
    UPDATES: "updates made meanwhile",
    BUSY: "CPU time of the driver's main thread, as a share of the wall time; the rest of it waits for runners or the device",
}


def set_ratio(algo: MADDPG, env_steps: int, fragment: int | str = "auto") -> None:
    """Changes settings of an algorithm that runs, for to start other runners would take much longer.

    Args:
        algo: The algorithm.
        env_steps: `num_env_steps_per_update`.
        fragment: `rollout_fragment_length`.
    """

    def change(config: Any) -> None:
        config._is_frozen = False
        config.training(num_env_steps_per_update=env_steps).env_runners(rollout_fragment_length=fragment).freeze()

    change(algo.config)
    # Fragments are by default as long as an update needs them.
    algo.env_runner_group.foreach_env_runner(lambda runner: change(runner.config), local_env_runner=False)


def _rounds(algos: dict[int, MADDPG], options: Options) -> dict[int, list[dict[str, float]]]:
    """Per number of runners what each round has brought; a first round is thrown away."""
    found: dict[int, list[dict[str, float]]] = {n: [] for n in algos}
    for round_number in range(options.repeats + 1):
        for n, algo in algos.items():
            measured = trained(algo, options.seconds)
            if round_number:
                found[n].append(measured)
    return found


def trained(algo: MADDPG, seconds: float) -> dict[str, float]:
    """What `algo.train()` does in so many seconds, by unit; what waited since the last call is used up first."""
    begin = algo.train()
    start, busy = time.perf_counter(), time.thread_time()
    while True:
        end = algo.train()
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return {
                ENV_STEPS: (env_steps_of(end) - env_steps_of(begin)) / elapsed,
                UPDATES: (updates_of(end) - updates_of(begin)) / elapsed,
                BUSY: 100 * (time.thread_time() - busy) / elapsed,
            }


def updates_of(result: dict[str, Any]) -> int:
    """Updates of an algorithm's whole life."""
    return int(result[LEARNER_RESULTS][ALL_MODULES]["num_updates_lifetime"])


def _tables(setting: str, found: dict[int, list[dict[str, float]]], env_steps: int | None) -> Iterator[dict[str, Any]]:
    names = {n: f"{n} env runner{'s' if n > 1 else ''}" for n in found}
    for unit, title in ((ENV_STEPS, "Training with many runners"), (BUSY, "The driver meanwhile")):
        values = {names[n]: [measured[unit] for measured in rounds] for n, rounds in found.items()}
        contenders = [Contender(names[n], DOES[unit], lambda: 0.0) for n in found]
        claims, notes = [], []
        if unit == ENV_STEPS:
            first, *others = names
            bars = {MOST: LEAST_RATIO} if first == 1 and env_steps == RATIOS[0] else {}
            claims = [ratio(values, names[n], names[first], at_least=bars.get(n)) for n in others]
            made = ", ".join(f"{summary([m[UPDATES] for m in rounds])['median']:,.0f}" for rounds in found.values())
            notes = [f"Updates/s meanwhile: {made}."]
        yield Table("train", title, setting, unit, contenders, values, claims, notes).to_dict()
