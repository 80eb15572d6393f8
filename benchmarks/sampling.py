"""Part `sampling`: env steps per second of env runners, against the bare environment and RLlib's own runner."""

from __future__ import annotations

import contextlib
from typing import Any

from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner

from benchmarks.compare import Contender, Table, measure_in_turn, ratio, seconds_per_unit
from benchmarks.games import DIRECT_STEPPING, BareLoop, built, make_config, takes_direct_stepping
from benchmarks.options import FRAGMENT, Options
from benchmarks.stock import RUNNER_DOES, make_stock_config

BARE, OURS, NO_DIRECT, STOCK = "bare loop", "ours", "ours, no direct path", "RLlib's runner"


def measure_sampling(scenario: str, options: Options) -> list[dict[str, Any]]:
    """One table, in env steps per second. Runners are called as algorithms call them: `sample()`, then `get_metrics()`."""
    bare = BareLoop(scenario)
    with contextlib.ExitStack() as stack:
        ours = our_runner(stack, scenario, options.num_envs)
        stock_algo = stack.enter_context(built(make_stock_config(scenario, num_envs=options.num_envs)))
        stock = stock_algo.env_runner_group.local_env_runner
        contenders = [
            Contender(BARE, bare.does, lambda: 1 / seconds_per_unit(bare.run, options.seconds)),
            Contender(
                OURS,
                f"MADDPGEnvRunner as it comes, policy and noise included, fragments of {FRAGMENT}",
                lambda: env_steps_per_second(ours, options.seconds),
            ),
            Contender(STOCK, RUNNER_DOES, lambda: env_steps_per_second(stock, options.seconds)),
        ]
        notes = []
        if takes_direct_stepping(scenario):
            slow = our_runner(stack, scenario, options.num_envs, {DIRECT_STEPPING: False})
            does = f"the same with env_config {DIRECT_STEPPING}=False: mpe2's env through PettingZoo's AEC conversion"
            contenders.insert(2, Contender(NO_DIRECT, does, lambda: env_steps_per_second(slow, options.seconds)))
        else:
            notes.append(f"This version has no `{DIRECT_STEPPING}`: ours is mpe2's env through PettingZoo's AEC conversion.")
        values = measure_in_turn(contenders, options.repeats)

    claims = [ratio(values, OURS, BARE, at_least=1.4)]
    if NO_DIRECT in values:
        claims.append(ratio(values, NO_DIRECT, BARE, at_least=0.85))
    claims.append(ratio(values, OURS, STOCK, at_least=4.0))
    setting = f"{scenario}, {options.num_envs} envs"
    return [Table("sampling", "Sampling", setting, "env steps/s", contenders, values, claims, notes).to_dict()]


def our_runner(
    stack: contextlib.ExitStack, scenario: str, num_envs: int, env_config: dict[str, Any] | None = None
) -> MultiAgentEnvRunner:
    """The local runner of our algorithm; `stack` stops it."""
    config = make_config(scenario, num_envs=num_envs, env_config=env_config)
    config.env_runners(rollout_fragment_length=FRAGMENT)
    return stack.enter_context(built(config)).env_runner_group.local_env_runner


def env_steps_per_second(runner: MultiAgentEnvRunner, seconds: float) -> float:
    """Speed of one runner, with the metrics that an algorithm fetches after every sample."""

    def call() -> int:
        env_steps = sum(chunk.env_steps() for chunk in runner.sample())
        runner.get_metrics()
        return env_steps

    return 1 / seconds_per_unit(call, seconds)
