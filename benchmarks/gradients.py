"""Part `gradients`: what the written-out passes through ReLU layers bring, which overwrite what they get."""

from __future__ import annotations

import contextlib
from typing import Any

from torch import nn

from benchmarks.compare import Contender, Table, measure_in_turn, ratio, seconds_per_unit
from benchmarks.games import built, fill, make_config
from benchmarks.options import Options
from benchmarks.update import update
from rllib_maddpg.algorithm.maddpg import MADDPG

OURS, AUTOGRAD = "written out", "autograd's"


def measure_gradients(scenario: str, options: Options) -> list[dict[str, Any]]:
    """A table in ms an update; for `simple_spread` a second one with many agents."""
    games = [{}, {"N": options.many_agents}] if scenario == "simple_spread" else [{}]
    return [_table(scenario, options, env_config).to_dict() for env_config in games]


def _table(scenario: str, options: Options, env_config: dict[str, Any]) -> Table:
    config = make_config(scenario, num_envs=options.num_envs, batch=options.batch, device=options.device, env_config=env_config)
    with contextlib.ExitStack() as stack:
        algo: MADDPG = stack.enter_context(built(config))
        fill(algo, options.batch)
        batch = algo.replay_buffer.sample(options.batch)
        update(algo, batch)  # makes the groups

        def milliseconds(activation: nn.Module) -> float:
            use(algo, activation)
            return 1e3 * seconds_per_unit(lambda: update(algo, batch, report=False) or 1, options.seconds)

        contenders = [
            Contender(OURS, "updates as they are: `_ReLULayers`", lambda: milliseconds(nn.ReLU(inplace=True))),
            # Computes what ReLU computes, and is none.
            Contender(AUTOGRAD, "the same layers one by one, by autograd", lambda: milliseconds(nn.Threshold(0.0, 0.0))),
        ]
        values = measure_in_turn(contenders, options.repeats)
        setting = f"{scenario}, {len(algo.layout)} agents, {options.batch:,} rows, networks of 2 x 64, {options.device}"
    claims = [ratio(values, OURS, AUTOGRAD)]
    return Table("gradients", "Gradients of ReLU layers", setting, "ms per update", contenders, values, claims)


def use(algo: MADDPG, activation: nn.Module) -> None:
    """Has all stacked networks of the Learner compute with another activation."""
    for groups in algo.learner_group._learner._groups.values():
        for group in groups:
            for network in (group.network, group.target):
                network.activation = activation
