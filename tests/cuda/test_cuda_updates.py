"""Updates on the GPU are the CPU's: each member of the family, both places of the rows, eager and as graphs."""

from __future__ import annotations

from functools import cache

import on_cuda
import pytest
import torch
from learner_games import env_steps, weights_of
from on_cuda import (
    GRAPH,
    KINDS,
    MEMBERS,
    ON,
    CountedGraph,
    both,
    config_of_member,
    game_of,
    learner_of,
    on_device,
    ring_of,
    rows_of,
)

pytestmark = [pytest.mark.cuda, pytest.mark.ray]

CALLS, UPDATES = 5, 4  # of each call
METRICS = ("critic_loss", "actor_loss", "critic_gradients_norm", "actor_gradients_norm", "qf_mean", "td_error_mean")


def numbers(results, modules) -> dict:
    return {(m, name): float(results[m][name].peek()) for m in modules for name in METRICS}


@cache
def made_by_the_cpu(member: str, kind: str, double: bool):
    """Weights before and after 20 updates, and the metrics of the last one."""
    game = game_of(member, kind)
    learner = learner_of(config_of_member(member, game), double)
    start = weights_of(learner)
    results = on_cuda.update_from(learner, ring_of(game, learner.schema, "cpu"), range(CALLS), UPDATES, double)
    return start, weights_of(learner), numbers(results, game.modules)


# Where the rows are, and whether updates are graphs; what is left out takes no other way through the code.
WAYS = {"eager": (ON, False), "graph": (ON, True)} | ({"graph-rows-cpu": ("cpu", True)} if ON == "cuda" else {})


@pytest.mark.parametrize(("ring", "graph"), list(WAYS.values()), ids=WAYS)
@pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("member", MEMBERS)
def test_twenty_updates_are_the_cpus(member, kind, double, ring, graph):
    """To 1e-8 in float64, and to 1e-4 in float32, of a network's weights, all of which have moved much further."""
    game, atol = game_of(member, kind), 1e-8 if double else 1e-4
    learner = learner_of(on_device(config_of_member(member, game), graph), double)
    start, expected, metrics = made_by_the_cpu(member, kind, double)
    assert learner._device.type == ON and on_cuda.same(weights_of(learner), start)
    replayed = CountedGraph.replayed
    results = on_cuda.update_from(learner, ring_of(game, learner.schema, ring), range(CALLS), UPDATES, double)
    assert (CountedGraph.replayed - replayed >= CALLS * UPDATES // 2) == graph
    for key, ours in on_cuda.on_cpu(weights_of(learner)).items():
        size = expected[key].norm()
        assert (expected[key] - start[key]).norm() > 50 * atol * size, f"{key} has hardly moved"
        assert (ours - expected[key]).norm() <= atol * size, key
    assert numbers(results, game.modules) == pytest.approx(metrics, rel=1e-6 if double else 1e-2, abs=1e-7 if double else 1e-3)


SHAPES = {
    "shared module": {"shared": True, "n_agents": 4},
    "frozen module": {"frozen": True},
    "two kinds of actions": {},
}


@GRAPH
@pytest.mark.parametrize("per_module", [False, True], ids=["", "minibatch_per_module"])
@pytest.mark.parametrize("shape", SHAPES)
def test_games_of_other_shapes(shape, per_module, graph, monkeypatch):
    """With agents that die, as in all games here."""
    monkeypatch.setitem(KINDS, "mixed", [KINDS["discrete"][0], KINDS["continuous"][0]])
    kind = "mixed" if shape == "two kinds of actions" else "discrete"
    game = game_of("MATD3", kind, **SHAPES[shape])
    config = config_of_member("MATD3", game, minibatch_per_module=per_module)
    cpu, device = both(config, graph, double=True)
    start = weights_of(cpu)
    size = on_cuda.ROWS * (len(game.modules) if per_module else 1)
    for learner in (cpu, device):
        on_cuda.update(learner, game, range(8), double=True, size=size)
    assert on_cuda.difference(device, cpu) < 1e-8
    unmoved = {m for m, net in start if torch.equal(start[m, net], weights_of(device)[m, net].cpu())}
    assert unmoved == set(game.frozen)


@GRAPH
def test_rates_by_schedule_and_targets_every_so_many_env_steps(graph):
    """What changes from update to update is in no graph: rates, the temperature, and whether targets are due."""
    game = game_of("InferredMADDPG", "discrete")
    settings = {
        "actor_lr": [[0, 2**-5], [60 * 16, 2**-9]],  # exact in single precision at every call
        "target_network_update_freq": 150,
        "exploration_temperature": [[0, 1.0], [600, 0.1]],
    }
    cpu, device = both(config_of_member("InferredMADDPG", game, **settings), graph, double=True)
    for learner in (cpu, device):
        on_cuda.update(learner, game, range(16), double=True)
    assert on_cuda.difference(device, cpu) < 1e-8


@GRAPH
def test_updates_that_report_and_such_that_do_not_are_the_same(graph):
    game = game_of("MATD3", "discrete")
    cpu, device = both(config_of_member("MATD3", game), graph, double=True)
    for k in range(12):
        for learner in (cpu, device):
            quiet = learner is device and k % 3 != 2
            batch = rows_of(game, learner.schema, k, double=True)
            results = learner.update(batch=batch, timesteps=env_steps(k), _no_metrics_reduce=quiet)
            if learner is cpu:
                expected = results
        if not quiet:
            assert numbers(results, game.modules) == pytest.approx(numbers(expected, game.modules), rel=1e-6, abs=1e-7)
    assert on_cuda.difference(device, cpu) < 1e-8
