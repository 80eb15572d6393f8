"""Part `family`: what an update of each member of the family costs, over the number of agents."""

from __future__ import annotations

import contextlib
from typing import Any

from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from benchmarks.compare import Contender, Table, measure_in_turn, ratio, seconds_per_unit
from benchmarks.games import built, fill, make_config
from benchmarks.options import Options
from rllib_maddpg.algorithm.maddpg import MADDPG

PLAIN, INFERRED = "MADDPG", "inferred policies"
MEMBERS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "MATD3": {"twin_q": True, "policy_delay": 2, "target_policy_noise": 0.2},
    "IDDPG": {"critic_view": "own"},
    INFERRED: {"infer_other_policies": True},
}
AGENTS = (3, 6, 12)
# Largest ratio of an update with inferred policies to a plain one with three agents, who keep six approximations.
BAR = 2.0


def measure_family(scenario: str, options: Options) -> list[dict[str, Any]]:
    """A table in ms an update; for `simple_spread` one for each number of agents."""
    games = [{"N": n} for n in AGENTS] if scenario == "simple_spread" else [{}]
    return [_table(scenario, options, env_config).to_dict() for env_config in games]


def _table(scenario: str, options: Options, env_config: dict[str, Any]) -> Table:
    given = {"num_envs": options.num_envs, "batch": options.batch, "device": options.device, "env_config": env_config}
    with contextlib.ExitStack() as stack:
        contenders = []
        for name, settings in MEMBERS.items():
            algo = stack.enter_context(built(make_config(scenario, **given).training(**settings)))
            fill(algo, options.batch)
            does = ", ".join(f"{key}={value}" for key, value in settings.items()) or "defaults"
            contenders.append(
                Contender(name, does, lambda algo=algo: 1e3 * seconds_per_unit(two_updates(algo), options.seconds))
            )
        values = measure_in_turn(contenders, options.repeats)
        agents = len(algo.layout)
    setting = f"{scenario}, {agents} agents, {options.batch:,} rows, networks of 2 x 64, {options.device}"
    bars = {INFERRED: BAR} if agents == AGENTS[0] else {}
    claims = [ratio(values, name, PLAIN, at_most=bars.get(name)) for name in MEMBERS if name != PLAIN]
    return Table("family", "Updates of the family", setting, "ms per update", contenders, values, claims)


def two_updates(algo: MADDPG) -> Any:
    """Two updates in a call, so that a delay of two counts: rows drawn, newest rows, no metrics."""
    rows = algo.config.train_batch_size_per_learner

    def call() -> int:
        algo.learner_group.update(
            **algo._draw(2, rows),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: algo.replay_buffer.num_rows_added},
            minibatch_size=rows,
            _no_metrics_reduce=True,
        )
        return 2

    return call
