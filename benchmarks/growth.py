"""How cost grows: with the number of agents, the rows of a batch, the number of envs and the size of the replay buffer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.compare import Contender, measure_in_turn, seconds_per_unit, summary
from benchmarks.games import BareLoop, built, fill, make_config
from benchmarks.options import FRAGMENT, Options
from benchmarks.replay import milliseconds_to_draw
from benchmarks.sampling import BARE, OURS, env_steps_per_second, our_runner
from benchmarks.update import update_table

# The scenario of mpe2 that any number of agents can play; three unless said otherwise.
SCENARIO = "simple_spread"


@dataclass(frozen=True)
class Sizes:
    """The points at which cost is measured."""

    agents: Sequence[int] = (2, 3, 6, 12, 24)
    batches: Sequence[int] = (256, 512, 1024, 2048, 4096, 8192)
    envs: Sequence[int] = (1, 2, 4, 8, 16, 32, 64)
    buffers: Sequence[int] = (10_000, 30_000, 100_000, 300_000, 1_000_000)


@dataclass(frozen=True)
class Curve:
    """What is measured over which x.

    Attributes:
        title: What is measured.
        x_name: What grows.
        xs: Its values, rising.
        unit: Of the measurements.
        setting: What stays the same.
        measure: x -> one row for each contender: name, does, and a `summary` of its repeats.
    """

    title: str
    x_name: str
    xs: Sequence[int]
    unit: str
    setting: str
    measure: Callable[[int], list[dict[str, Any]]]


def measure_growth(
    options: Options, sizes: Sizes | None = None, tell: Callable[[str], None] = lambda text: None
) -> list[dict[str, Any]]:
    """Measures all curves.

    Args:
        sizes: The points; None: the default ones.
        tell: Is told of each point before it is measured.

    Returns:
        Per curve its title, x, unit and setting, and per contender ("lines") its points and the exponent with which it grows.
    """
    result = []
    for curve in _curves(options, sizes or Sizes()):
        points = []
        for x in curve.xs:
            tell(f"{curve.title}: {x:,} {curve.x_name}")
            points.append(curve.measure(x))
        lines = []
        for rows in zip(*points, strict=True):
            medians = [row["median"] for row in rows]
            line = {"name": rows[0]["name"], "does": rows[0]["does"], "exponent": exponent(curve.xs, medians)}
            lines.append({**line, "points": [{k: row[k] for k in ("repeats", "median", "min", "max")} for row in rows]})
        fixed = {name: getattr(curve, name) for name in ("title", "x_name", "unit", "setting")}
        result.append({**fixed, "x": list(curve.xs), "lines": lines})
    return result


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """p of the power law y ~ x^p through the first and the last point; None for less than two."""
    return math.log(ys[-1] / ys[0]) / math.log(xs[-1] / xs[0]) if len(xs) > 1 else None


def _curves(options: Options, sizes: Sizes) -> list[Curve]:
    batch, envs, rows = f"{options.batch:,} rows a batch", f"{options.num_envs} envs", f"{options.rows:,} rows in the buffer"
    three = f"{SCENARIO}, 3 agents"
    per_step, per_update = "us per env step", "ms per update"
    return [
        Curve("Sampling", "agents", sizes.agents, per_step, f"{SCENARIO}, {envs}", lambda n: _sampling(options, {"N": n})),
        Curve("Sampling", "envs", sizes.envs, per_step, three, lambda n: _sampling(replace(options, num_envs=n), {})),
        Curve("Update", "agents", sizes.agents, per_update, f"{SCENARIO}, {batch}", lambda n: _update(options, {"N": n})),
        Curve("Update", "rows a batch", sizes.batches, per_update, three, lambda n: _update(replace(options, batch=n), {})),
        Curve("Draw", "rows a batch", sizes.batches, "ms", f"{three}, {rows}", lambda n: _draw(replace(options, batch=n))),
        Curve("Draw", "rows in buffer", sizes.buffers, "ms", f"{three}, {batch}", lambda n: _draw(replace(options, rows=n))),
    ]


def _sampling(options: Options, env_config: dict[str, Any]) -> list[dict[str, Any]]:
    bare = BareLoop(SCENARIO, env_config)
    with contextlib.ExitStack() as stack:
        runner = our_runner(stack, SCENARIO, options.num_envs, env_config)
        contenders = [
            Contender(OURS, "MADDPGEnvRunner.sample()", lambda: 1e6 / env_steps_per_second(runner, options.seconds)),
            Contender(BARE, bare.does, lambda: 1e6 * seconds_per_unit(lambda: bare.run(FRAGMENT), options.seconds)),
        ]
        return _rows(contenders, options.repeats)


def _update(options: Options, env_config: dict[str, Any]) -> list[dict[str, Any]]:
    return update_table(SCENARIO, options, env_config).to_dict()["rows"]


def _draw(options: Options) -> list[dict[str, Any]]:
    config = make_config(SCENARIO, num_envs=options.num_envs, batch=options.batch, rows=options.rows, device=options.device)
    with built(config) as algo:
        fill(algo, options.rows)
        does = "JointReplayBuffer.sample() and tensors of it"
        measure = Contender(OURS, does, lambda: milliseconds_to_draw(algo, options.batch, options.seconds))
        return _rows([measure], options.repeats)


def _rows(contenders: Sequence[Contender], repeats: int) -> list[dict[str, Any]]:
    values = measure_in_turn(contenders, repeats)
    return [{"name": c.name, "does": c.does, **summary(values[c.name])} for c in contenders]
