"""Part `update`: one whole update through RLlib's LearnerGroup, metrics included, against the same in bare PyTorch."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from benchmarks.bare_update import NETWORKS, BareMADDPG, Settings, tensors_of
from benchmarks.compare import Contender, Table, measure_in_turn, ratio, seconds_per_unit
from benchmarks.games import built, fill, make_config
from benchmarks.options import Options
from rllib_maddpg.algorithm.maddpg import MADDPG
from rllib_maddpg.modules.critic_inputs import CriticInputs
from rllib_maddpg.rows.joint_batch import JointBatch

OURS, BARE = "ours", "bare PyTorch"
# Number of agents -> largest ratio of ours to the baseline.
BARS = {3: 1.0, 24: 0.5}
TOLERANCE = 1e-5
# 1,000 env steps a result and 100 env steps an update.
REPORT_EVERY = 10
# Adam's first step is of one size, whichever size the gradient has. Where a gradient is zero but for rounding, it may go
# either way, so this share of a network's weights may differ by more than the tolerance.
STRAYS = 1e-3


def measure_update(scenario: str, options: Options) -> list[dict[str, Any]]:
    """A table in ms an update; for `simple_spread` a second one with many agents."""
    games = [{}]
    if scenario == "simple_spread":
        games.append({"N": options.many_agents})
    return [update_table(scenario, options, env_config).to_dict() for env_config in games]


def update_table(scenario: str, options: Options, env_config: dict[str, Any], batch_size: int | None = None) -> Table:
    """Both contenders on one game, after a check that they do the same.

    Args:
        batch_size: Joint rows; None: as in the options.

    Raises:
        DifferentArithmetic: If one update leads to other weights.
    """
    batch_size = batch_size or options.batch
    config = make_config(scenario, num_envs=options.num_envs, batch=batch_size, device=options.device, env_config=env_config)
    with contextlib.ExitStack() as stack:
        algo: MADDPG = stack.enter_context(built(config))
        fill(algo, batch_size)
        bare = make_bare(algo, options.device)
        check_same_arithmetic(algo, bare)
        seen = algo.layout.obs_dim + algo.layout.action_dim
        inputs = CriticInputs(algo.replay_buffer.sample(batch_size).joint_rows[:, :seen])
        contenders = [
            Contender(
                OURS,
                "learner_group.update(batch=...), from joint rows to new weights; metrics reported at every "
                f"{REPORT_EVERY}th update, as in training at the defaults",
                lambda: _milliseconds(_our_updates(algo), algo, options.seconds),
            ),
            Contender(BARE, BareMADDPG.DOES, lambda: _milliseconds(bare.update, algo, options.seconds, rows_by_agent)),
        ]
        values = measure_in_turn(contenders, options.repeats)
    num_agents = len(bare.agents)
    setting = f"{scenario}, {num_agents} agents, {batch_size:,} rows, networks of 2 x 64, {options.device}"
    claims = [ratio(values, OURS, BARE, at_most=BARS.get(num_agents))]
    notes = [f"Checked before the measurement: one update from the same weights leads to the same weights (to {TOLERANCE:g})."]
    if inputs.columns is not None:
        left_out = 1 - len(inputs.columns) / inputs.values.shape[1]
        notes.append(
            f"{left_out:.0%} of the critics' inputs are zero in all rows (messages of silent agents); ours leaves them out."
        )
    return Table("update", "Update", setting, "ms per update", contenders, values, claims, notes)


def make_bare(algo: MADDPG, device: str = "cpu", capturable: bool = False) -> BareMADDPG:
    """The baseline with the algorithm's present weights and settings; other arguments as it takes them."""
    config, agents = algo.config, algo.layout.agents
    settings = Settings(config.lr, config.gamma, config.tau, config.grad_clip, config.actor_output_reg)
    weights = algo.learner_group.get_weights()
    return BareMADDPG({agent: weights[agent] for agent in agents}, settings, device, capturable)


def rows_by_agent(batch: JointBatch) -> dict[str, dict[str, np.ndarray]]:
    """The same rows as the baseline takes them: an array of its own for each agent and column."""
    return {
        agent: {name: np.ascontiguousarray(values.cpu().numpy()) for name, values in columns.items()}
        for agent, columns in batch.modules.items()
    }


def update(algo: MADDPG, batch: JointBatch, report: bool = True) -> None:
    """One update as `MADDPG.training_step` makes it; `report`: with its metrics."""
    timesteps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: algo.replay_buffer.num_rows_added}
    algo.learner_group.update(batch=batch, timesteps=timesteps, _no_metrics_reduce=not report)


def _our_updates(algo: MADDPG) -> Callable[[JointBatch], None]:
    """Updates of which every `REPORT_EVERY`-th reports metrics."""
    numbers = itertools.count(1)
    return lambda batch: update(algo, batch, report=next(numbers) % REPORT_EVERY == 0)


def _milliseconds(one_update: Callable, algo: MADDPG, seconds: float, prepare: Callable = lambda batch: batch) -> float:
    batch = prepare(algo.replay_buffer.sample(algo.config.total_train_batch_size))

    def call() -> int:
        one_update(batch)
        return 1

    return 1e3 * seconds_per_unit(call, seconds)


# ------------------------------------------------------------------------------------------ the same arithmetic


class DifferentArithmetic(RuntimeError):
    """Ours and the baseline do not compute the same: their times must not be compared."""


def check_same_arithmetic(algo: MADDPG, bare: BareMADDPG) -> float:
    """Makes one update with both and compares all weights, targets included.

    Both must start from the same weights, with no update made yet.

    Returns:
        The largest gap, strays left out.

    Raises:
        DifferentArithmetic: Naming the network with the largest gap.
    """
    batch = algo.replay_buffer.sample(algo.config.total_train_batch_size)
    update(algo, batch)
    bare.update(rows_by_agent(batch))
    ours, theirs = algo.learner_group.get_weights(), bare.weights()
    gaps = {
        (agent, name): _gap(tensors_of(ours[agent], name), theirs[agent][name]) for agent in bare.agents for name in NETWORKS
    }
    worst = max(gaps, key=gaps.get)
    if gaps[worst] > TOLERANCE:
        raise DifferentArithmetic(
            f"After one update from the same weights the {worst[1]} of {worst[0]!r} differs by {gaps[worst]:.2g} between ours "
            f"and the bare PyTorch baseline, more than {TOLERANCE:g}: they do not compute the same, so their times say nothing."
        )
    return gaps[worst]


def _gap(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    """The largest difference within one network, but for its strays."""
    gaps = np.concatenate([np.abs(x - y).ravel() for x, y in zip(a, b, strict=True)])
    if not np.isfinite(gaps).all():
        return float("inf")
    return float(np.sort(gaps)[len(gaps) - 1 - int(STRAYS * len(gaps))])
