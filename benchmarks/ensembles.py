"""Part `ensembles`: whole training with three sub-policies of each agent against training with one."""

from __future__ import annotations

import contextlib
from typing import Any

from benchmarks.compare import Contender, Table, measure_in_turn, ratio
from benchmarks.games import built, make_config
from benchmarks.options import Options
from benchmarks.train import trained_per_second, warm_up

ONE, THREE, SHARED = "one policy", "3 sub-policies", "3, one draw for all"
KINDS: dict[str, dict[str, Any]] = {
    ONE: {},
    THREE: {"num_sub_policies": 3},
    SHARED: {"num_sub_policies": 3, "share_sub_policy_draw": True},
}
# Smallest ratio of env steps per second.
BAR = 0.5


def measure_ensembles(scenario: str, options: Options) -> list[dict[str, Any]]:
    """Env steps per second of `algo.train()` in one process."""
    sizes = {"num_envs": options.num_envs, "batch": options.batch, "rows": options.rows, "device": options.device}
    with contextlib.ExitStack() as stack:
        contenders = []
        for name, settings in KINDS.items():
            algo = stack.enter_context(built(make_config(scenario, **sizes).training(**settings)))
            warm_up(algo)
            does = ", ".join(f"{key}={value}" for key, value in settings.items()) or "defaults"
            contenders.append(Contender(name, does, lambda algo=algo: trained_per_second(algo, options.seconds)))
        values = measure_in_turn(contenders, options.repeats)
        every = algo.config.num_env_steps_per_update
    setting = f"{scenario}, {options.num_envs} envs, {options.batch:,} rows an update, one each {every:g} env steps"
    claims = [ratio(values, name, ONE, at_least=BAR) for name in (THREE, SHARED)]
    return [Table("ensembles", "Policy ensembles", setting, "env steps/s", contenders, values, claims).to_dict()]
