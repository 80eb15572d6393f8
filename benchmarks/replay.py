"""Part `replay`: drawing joint rows, adding them, and the memory they take, against RLlib's own multi-agent buffer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner

from benchmarks import stock
from benchmarks.compare import Contender, Table, absolute, measure_in_turn, ratio, seconds_per_unit
from benchmarks.games import built, fill, make_config
from benchmarks.options import FRAGMENT, Options
from benchmarks.resident import resident_bytes
from rllib_maddpg.algorithm.maddpg import MADDPG

OURS, STOCK = "ours", "RLlib's buffer"
# So many envs make fragments of 100 rows, one update's worth.
_NUM_ENVS = 100 // FRAGMENT
_ADDED_FRAGMENTS = 10
# Each starts a process; the same number comes out nearly every time.
_MEMORY_REPEATS = 3


def measure_replay(scenario: str, options: Options) -> list[dict[str, Any]]:
    """Three tables: ms to draw a batch, us to add an env step, MB of a full buffer."""
    ours_config = make_config(
        scenario, num_envs=_NUM_ENVS, batch=options.batch, rows=options.rows, device=options.device
    ).env_runners(rollout_fragment_length=FRAGMENT)
    stock_config = stock.make_stock_config(
        scenario, num_envs=_NUM_ENVS, batch=options.batch, rows=options.rows, device=options.device
    )
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(built(ours_config))
        theirs = stack.enter_context(built(stock_config))
        fill(ours, options.rows)
        stock.fill(theirs, options.stock_rows)
        tables = [_draw_table(scenario, options, ours, theirs), _add_table(scenario, options, ours, theirs)]
    return [table.to_dict() for table in [*tables, _memory_table(scenario, options)]]


def milliseconds_to_draw(algo: MADDPG, rows: int, seconds: float) -> float:
    """From the buffer to the tensors that the loss sees, on the Learner's device."""

    def call() -> int:
        algo.learner_group._learner._to_device(algo.replay_buffer.sample(rows))
        return 1

    return 1e3 * seconds_per_unit(call, seconds)


def _draw_table(scenario: str, options: Options, ours: MADDPG, theirs: Any) -> Table:
    def draw_stock() -> int:
        stock.draw(theirs)
        return 1

    contenders = [
        Contender(
            OURS,
            f"JointReplayBuffer.sample() with {options.rows:,} rows in it, then what the Learner does up to the loss",
            lambda: milliseconds_to_draw(ours, options.batch, options.seconds),
        ),
        Contender(
            STOCK,
            f"{stock.BUFFER_DOES}; {options.stock_rows:,} env steps in it, then the Learner's connectors",
            lambda: 1e3 * seconds_per_unit(draw_stock, options.seconds),
        ),
    ]
    values = measure_in_turn(contenders, options.repeats)
    setting = f"{scenario}, {options.batch:,} rows as tensors, {options.device}"
    claims = [ratio(values, OURS, STOCK, at_most=1 / 100)]
    notes = ["RLlib's buffer draws rows for each agent by itself: they are not joint rows, which a centralized critic needs."]
    return Table("replay", "Drawing a batch", setting, "ms", contenders, values, claims, notes)


def _add_table(scenario: str, options: Options, ours: MADDPG, theirs: Any) -> Table:
    def microseconds(runner: MultiAgentEnvRunner, add: Callable[[Sequence], Any]) -> float:
        spent = env_steps = 0.0
        for _ in range(_ADDED_FRAGMENTS):
            fragments = runner.sample()
            start = time.perf_counter()
            add(fragments)
            spent += time.perf_counter() - start
            env_steps += sum(fragment.env_steps() for fragment in fragments)
        return 1e6 * spent / env_steps

    def add_ours(rollouts: Sequence) -> None:
        for rollout in rollouts:
            ours.replay_buffer.add(rollout)

    our_runner, stock_runner = (algo.env_runner_group.local_env_runner for algo in (ours, theirs))
    contenders = [
        Contender(OURS, "JointReplayBuffer.add() of one rollout", lambda: microseconds(our_runner, add_ours)),
        Contender(
            STOCK,
            "MultiAgentEpisodeReplayBuffer.add() of the runner's episodes",
            lambda: microseconds(stock_runner, theirs.local_replay_buffer.add),
        ),
    ]
    values = measure_in_turn(contenders, options.repeats)
    claims = [absolute(values, OURS, at_most=5.0), ratio(values, OURS, STOCK)]
    setting = f"{scenario}, fragments of {_NUM_ENVS * FRAGMENT} env steps from {_NUM_ENVS} envs"
    return Table("replay", "Adding", setting, "us per env step", contenders, values, claims)


def _memory_table(scenario: str, options: Options) -> Table:
    resident, expected = "resident", "bytes_per_row x capacity"
    repeats = min(options.repeats, _MEMORY_REPEATS)
    megabytes = [[n / 1e6 for n in resident_bytes(scenario, options.rows)] for _ in range(repeats)]
    values = {resident: [m for m, _ in megabytes], expected: [m for _, m in megabytes]}
    # Measured by the processes above, so there is nothing to call.
    contenders = [
        Contender(resident, "growth of a fresh process's resident memory while the buffer is filled", lambda: 0.0),
        Contender(expected, "what the buffer says it takes", lambda: 0.0),
    ]
    claims = [ratio(values, resident, expected, at_most=1.05)]
    return Table("replay", "Memory", f"{scenario}, {options.rows:,} rows", "MB", contenders, values, claims)
