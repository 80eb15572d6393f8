"""Part `update` on a GPU: from rows that lie on the device to new weights; ours and bare PyTorch, eagerly and as a CUDA graph.

On a CPU, `--drawn` measures the same, without graphs.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from benchmarks.bare_rows import BareFromRows, BareGraph
from benchmarks.bare_update import NETWORKS, tensors_of
from benchmarks.compare import Claim, Contender, Table, absolute, measure_in_turn, ratio, seconds_per_unit
from benchmarks.devices import can_graph, config_on_device, waiter
from benchmarks.games import built, fill
from benchmarks.options import Options
from benchmarks.profiles import write_profile
from benchmarks.update import REPORT_EVERY, STRAYS, DifferentArithmetic, make_bare
from rllib_maddpg.algorithm.maddpg import MADDPG

EAGER, GRAPH, CALLS = "ours", "ours, CUDA graph", f"ours, CUDA graph, {REPORT_EVERY} a call"
BARE, BARE_GRAPH = "bare PyTorch", "bare PyTorch, CUDA graph"
OURS_DOES = "rows drawn from the buffer on the device and learner_group.update(batch=...)"
DOES = {
    EAGER: f"{OURS_DOES}, finite check included; metrics reported at every {REPORT_EVERY}th update, as in training",
    GRAPH: "the same with cuda_graph=True",
    CALLS: f"the same with {REPORT_EVERY} updates in a call, as with an update each 10 env steps",
    BARE: "rows drawn by torch's generator on the device, one learning after the other by Adam as it comes; no check, no "
    "metrics, no wait between updates",
    BARE_GRAPH: "the same as one CUDA graph, draw included, with fused Adam whose rate and clock are on the device",
}
# Number of agents -> most milliseconds of an update of ours as a graph, at the options' batch.
MOST_MS = {3: 1.0, 24: 4.0}
# With three agents: largest ratio to the bare graph, smallest one of eager bare PyTorch to ours.
TO_BARE_GRAPH, BARE_TO_OURS = 1.3, 5.0
LARGER_BATCH = 8
# Updates after which a graph is compared: the first ones of ours are made eagerly, before there is a graph.
_CHECKED_UPDATES = 10
# Of the norm of a network's weights.
TOLERANCE = 1e-4


def measure_drawn_updates(scenario: str, options: Options) -> Iterator[dict[str, Any]]:
    """Tables in ms an update, each as soon as it is measured; for `simple_spread` also with many agents.

    Raises:
        DifferentArithmetic: At the end, if in some table the contenders did not compute the same; that claims nothing.
        ValueError, RuntimeError: At the end, if updates could not be recorded; they are left out.
    """
    games = [{}] + ([{"N": options.many_agents}] if scenario == "simple_spread" else [])
    errors: list[Exception] = []
    for batch, env_config in itertools.product((options.batch, LARGER_BATCH * options.batch), games):
        yield from _measured(scenario, options, env_config, batch, errors)
    if errors:
        raise errors[0]


def _measured(
    scenario: str, options: Options, env_config: dict[str, Any], batch: int, errors: list[Exception]
) -> Iterator[dict[str, Any]]:
    device = options.device
    given = {"num_envs": options.num_envs, "batch": batch, "rows": max(options.rows, batch), "env_config": env_config}
    with contextlib.ExitStack() as stack:
        names = [EAGER, GRAPH] if can_graph(device) else [EAGER]
        ours: dict[str, MADDPG] = {}
        for name in names:
            ours[name] = stack.enter_context(built(config_on_device(scenario, device, name == GRAPH, **given)))
        fill(ours[EAGER], given["rows"])
        failed = [error for name in names[1:] if (error := _try_graph(ours, name))]
        bares, error = make_bares(ours[EAGER], device)
        failed += [error] if error else []
        try:
            notes, is_same = [check_same_weights(ours, bares)], True
        except DifferentArithmetic as error:
            failed.append(error)
            notes, is_same = [], False
        errors += failed
        notes += map(str, failed)
        calls: dict[str, Callable[[], int]] = {name: updates_of(algo) for name, algo in ours.items()}
        if GRAPH in ours:
            calls[CALLS] = updates_of(ours[GRAPH], REPORT_EVERY)
        calls |= {name: _one(bare) for name, bare in bares.items()}
        wait = waiter(device)
        contenders = [
            Contender(name, DOES[name], lambda call=call: 1e3 * seconds_per_unit(call, options.seconds, wait))
            for name, call in calls.items()
        ]
        values = measure_in_turn(contenders, options.repeats)
        agents = len(ours[EAGER].layout)
        setting = f"{scenario}, {agents} agents, {batch:,} rows, networks of 2 x 64, rows on {device}"
        bars = agents if batch == options.batch else None
        claims = claims_of(values, bars) if is_same else []
        yield Table("update", "Update from a draw", setting, "ms per update", contenders, values, claims, notes).to_dict()
        if options.profile and batch == options.batch:
            for name, call in calls.items():
                write_profile(Path(options.profile), f"{agents} agents, {batch} rows, {name}", call, device)


def claims_of(values: Mapping[str, list[float]], agents: int | None) -> list[Claim]:
    """Ratios, and the bars of this number of agents; None: no bars."""
    if GRAPH not in values:
        return [ratio(values, EAGER, BARE)]
    three = agents == 3
    claims = [absolute(values, GRAPH, at_most=MOST_MS.get(agents))]
    if BARE_GRAPH in values:
        claims.append(ratio(values, GRAPH, BARE_GRAPH, at_most=TO_BARE_GRAPH if three else None))
    return [
        *claims,
        ratio(values, BARE, GRAPH, at_least=BARE_TO_OURS if three else None),
        ratio(values, EAGER, GRAPH),
    ]


def updates_of(algo: MADDPG, in_a_call: int = 1, rows: int | None = None, reports: bool = True) -> Callable[[], int]:
    """Draws and makes updates as `MADDPG.training_step` does; returns how many.

    Args:
        algo: With rows in its buffer and a local Learner.
        in_a_call: Updates in a call.
        rows: Of each update; None: those of the config.
        reports: Whether every `REPORT_EVERY`th update reports metrics.
    """
    rows = rows or algo.config.train_batch_size_per_learner
    numbers = itertools.count(1)

    def call() -> int:
        report = reports and next(numbers) * in_a_call % REPORT_EVERY == 0
        algo.learner_group.update(
            **algo._draw(in_a_call, rows),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: algo.replay_buffer.num_rows_added},
            minibatch_size=rows,
            _no_metrics_reduce=not report,
        )
        return in_a_call

    return call


def _one(bare: BareFromRows) -> Callable[[], int]:
    def call() -> int:
        bare.update()
        return 1

    return call


def make_bares(algo: MADDPG, device: str) -> tuple[dict[str, BareFromRows], Exception | None]:
    """The baselines with the algorithm's present weights, settings and rows; the graph only where there can be one.

    Returns:
        The baselines, and why there is no graph although there should be.
    """
    given = algo.schema, algo.replay_buffer.latest(len(algo.replay_buffer)).joint_rows, algo.config.total_train_batch_size
    bares: dict[str, BareFromRows] = {BARE: BareFromRows(make_bare(algo, device), *given)}
    try:
        if can_graph(device):
            bares[BARE_GRAPH] = BareGraph(make_bare(algo, device, capturable=True), *given)
    except (ValueError, RuntimeError) as error:
        return bares, error
    return bares, None


def _try_graph(ours: dict[str, MADDPG], name: str) -> Exception | None:
    """Makes updates until one is recorded and replayed. If that fails, the contender is left out, and the reason returned."""
    start_alike(ours[name], ours[EAGER])
    call = updates_of(ours[name], reports=False)
    try:
        for _ in range(_CHECKED_UPDATES):
            call()
    except (ValueError, RuntimeError) as error:
        del ours[name]
        return error
    start_alike(ours[name], ours[EAGER])
    return None


def start_alike(algo: MADDPG, other: MADDPG) -> None:
    """Gives an algorithm the weights and rows of another one; their next draws are the same, too."""
    algo.learner_group.set_state(other.learner_group.get_state())
    algo.replay_buffer.set_state(other.replay_buffer.get_state())


# ------------------------------------------------------------------------------------------ the same weights


def check_same_weights(ours: Mapping[str, MADDPG], bares: Mapping[str, BareFromRows]) -> str:
    """Makes updates with all contenders, which must start alike, and compares all weights, targets included.

    One update of eager ours and of each baseline on the same rows; then some more of ours eagerly and as a graph, which draw
    the same rows.

    Returns:
        What was found, in a sentence.

    Raises:
        DifferentArithmetic: Naming who differs, and in which network.
    """
    algo = ours[EAGER]
    rows = algo.config.total_train_batch_size
    places = torch.arange(rows) * 7 % len(algo.replay_buffer)
    batch = algo.replay_buffer.rows_at(places.numpy())
    state = algo.learner_group.get_state()
    algo.learner_group.update(
        batch=batch, timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: algo.replay_buffer.num_rows_added}, _no_metrics_reduce=True
    )
    newest = {EAGER: weights_of(algo)}
    for name, bare in bares.items():
        # `latest` has the oldest row first; in a ring that has come round they lie elsewhere.
        bare.update_at((places - algo.replay_buffer.next_place) % len(algo.replay_buffer))
        newest[name] = bare.bare.weights()
    gaps = [check_gaps(newest[name], newest[EAGER], name) for name in bares]
    algo.learner_group.set_state(state)
    if GRAPH in ours:
        for own in ours.values():
            call = updates_of(own)
            for _ in range(_CHECKED_UPDATES):
                call()
        gaps.append(check_gaps(weights_of(ours[GRAPH]), weights_of(algo), GRAPH))
    return (
        "Checked before the measurement: from the same weights and rows all lead to the same weights (largest gap: "
        f"{max(gaps):.1g} of a network's norm)."
    )


def weights_of(algo: MADDPG) -> dict[str, dict[str, list[np.ndarray]]]:
    """Agent -> network -> its tensors in order."""
    weights = algo.learner_group.get_weights()
    return {a: {name: tensors_of(weights[a], name) for name in NETWORKS} for a in algo.layout.agents}


def check_gaps(found: Mapping[str, Any], wanted: Mapping[str, Any], name: str) -> float:
    """The largest gap between weights as `weights_of` returns them, which must be small.

    Raises:
        DifferentArithmetic: With the name of who has found them, and the network.
    """
    gaps = {(a, net): _gap(found[a][net], wanted[a][net]) for a in wanted for net in NETWORKS}
    (agent, net), gap = max(gaps.items(), key=lambda item: item[1])
    if not gap <= TOLERANCE:
        raise DifferentArithmetic(
            f"From the same weights and rows the {net} of {agent!r} differs by {gap:.2g} of its norm between {name!r} and "
            f"{EAGER!r}, more than {TOLERANCE:g}: they do not compute the same, so their times say nothing."
        )
    return gap


def _gap(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    """The norm of the difference, but for strays, as a ratio to that of the weights; infinity where something is not finite."""
    a, b = (np.concatenate([x.ravel() for x in tensors]).astype(np.float64) for tensors in (a, b))
    differences = np.sort(np.abs(a - b))[: len(a) - int(STRAYS * len(a))]
    gap = float(np.linalg.norm(differences) / np.linalg.norm(b))
    return gap if np.isfinite(gap) else float("inf")
