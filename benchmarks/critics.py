"""Part `critics`: what an update costs with attention critics, and how many parameters they have, over the number of agents."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.compare import Contender, Table, measure_in_turn, ratio, seconds_per_unit
from benchmarks.family import two_updates
from benchmarks.games import built, fill, make_config
from benchmarks.options import Options
from rllib_maddpg.algorithm.maddpg import MADDPG

PLAIN, ATTENTION = "mlp", "attention"
AGENTS = (3, 12, 24)
# Largest ratio of an update with attention critics to one with plain ones, with 24 agents.
BAR = 1.0


def measure_critics(scenario: str, options: Options) -> list[dict[str, Any]]:
    """A table in ms an update; for `simple_spread` one for each number of agents."""
    games = [{"N": n} for n in AGENTS] if scenario == "simple_spread" else [{}]
    return [_table(scenario, options, env_config).to_dict() for env_config in games]


def _table(scenario: str, options: Options, env_config: dict[str, Any]) -> Table:
    given = {"num_envs": options.num_envs, "batch": options.batch, "device": options.device, "env_config": env_config}
    with contextlib.ExitStack() as stack:
        contenders, algos = [], {}
        for kind in (PLAIN, ATTENTION):
            algo = stack.enter_context(built(make_config(scenario, **given).training(critic_type=kind)))
            fill(algo, options.batch)
            updates = two_updates(algo)
            contenders.append(Contender(kind, f"critic_type={kind!r}", partial(_milliseconds, updates, options)))
            algos[kind] = algo
        values = measure_in_turn(contenders, options.repeats)
        parameters = {kind: _parameters(algo) for kind, algo in algos.items()}
        agents = len(algo.layout)
    setting = f"{scenario}, {agents} agents, {options.batch:,} rows, networks of 2 x 64, {options.device}"
    claim = ratio(values, ATTENTION, PLAIN, at_most=BAR if agents == AGENTS[-1] else None)
    told = ", ".join(f"{count:,} ({kind})" for kind, count in parameters.items())
    return Table(
        "critics",
        "Updates with attention critics",
        setting,
        "ms of CPU time per update" if options.device == "cpu" else "ms per update",
        contenders,
        values,
        [claim],
        [f"Critics' parameters: {told}."],
    )


def _milliseconds(updates: Callable[[], int], options: Options) -> float:
    """Of an update: on a CPU the time that the process had, whatever else the machine did."""
    if options.device != "cpu":
        return 1e3 * seconds_per_unit(updates, options.seconds)
    made, start = 0, time.process_time()
    while not made or time.process_time() - start < options.seconds:
        made += updates()
    return 1e3 * (time.process_time() - start) / made


def _parameters(algo: MADDPG) -> int:
    """Of all critics, those that several modules have in common once; after an update."""
    learner = algo.learner_group._learner
    critics = [learner.module[m].unwrapped().critic for m in algo.layout.modules]
    return sum({p.data_ptr(): p.numel() for critic in critics for p in critic.parameters()}.values())
