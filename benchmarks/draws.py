"""Part `draws`: what prioritized replay and n-step returns add to an update, drawing and feedback included."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from benchmarks.compare import Contender, Table, measure_in_turn, ratio, seconds_per_unit
from benchmarks.devices import config_on_device, waiter
from benchmarks.games import built, fill
from benchmarks.options import Options
from benchmarks.update import REPORT_EVERY
from rllib_maddpg.algorithm.maddpg import MADDPG

PLAIN, PRIORITIZED, N_STEP, BOTH = "uniform, one step", "prioritized", "n-step", "prioritized, n-step"
_N = {"n_step": 3}
_BY_PRIORITY = {"replay_buffer_config": {"type": "PrioritizedJointReplayBuffer"}}
SETTINGS: dict[str, dict[str, Any]] = {PLAIN: {}, PRIORITIZED: _BY_PRIORITY, N_STEP: _N, BOTH: {**_BY_PRIORITY, **_N}}
# Largest ratios to a plain update, where it has them: batches of this size, of so many rows.
_BATCH, _ROWS = 1024, 1_000_000
BARS = {PRIORITIZED: 1.2, N_STEP: 1.05}


def measure_draws(scenario: str, options: Options) -> list[dict[str, Any]]:
    """A table in ms an update; `--rows 1000000` has bars."""
    given = {"num_envs": options.num_envs, "batch": options.batch, "rows": options.rows}
    wait = waiter(options.device)
    with contextlib.ExitStack() as stack:
        contenders = []
        for name, settings in SETTINGS.items():
            config = config_on_device(scenario, options.device, options.device == "cuda", **given).training(**settings)
            algo = stack.enter_context(built(config))
            fill(algo, options.rows)
            does = f"n_step={algo.config.n_step}, {algo.config.replay_buffer_config['type']}"
            call = updates_of(algo)
            contenders.append(Contender(name, does, lambda call=call: 1e3 * seconds_per_unit(call, options.seconds, wait)))
        values = measure_in_turn(contenders, options.repeats)
        agents = len(algo.layout)
    setting = f"{scenario}, {agents} agents, {options.batch:,} of {options.rows:,} rows, networks of 2 x 64, {options.device}"
    bars = BARS if (options.batch, options.rows) == (_BATCH, _ROWS) else {}
    claims = [ratio(values, name, PLAIN, at_most=bars.get(name)) for name in SETTINGS if name != PLAIN]
    return [Table("draws", "Updates by how rows are drawn", setting, "ms per update", contenders, values, claims).to_dict()]


def updates_of(algo: MADDPG) -> Callable[[], int]:
    """Draws, makes an update and tells the replay buffer of it, as `MADDPG.training_step` does; returns 1."""
    rows, made = algo.config.train_batch_size_per_learner, 0

    def call() -> int:
        nonlocal made
        made += 1
        algo.learner_group.update(
            **algo._draw(1, rows),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: algo.replay_buffer.num_rows_added},
            minibatch_size=rows,
            _no_metrics_reduce=bool(made % REPORT_EVERY),
        )
        algo._give_feedback()
        return 1

    return call
