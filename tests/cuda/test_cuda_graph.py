"""CUDA's graphs do what their stand-in on the CPU does, and the updates in them never make the host wait."""

from __future__ import annotations

import contextlib

import pytest
import torch
from fake_graph import CaptureError
from graph_training import assert_replays_are_steps
from learner_games import weights_of
from on_cuda import (
    DEVICE,
    MEMBERS,
    ON,
    CountedGraph,
    GraphLearner,
    config_of_member,
    game_of,
    learner_of,
    on_device,
    ring_of,
    update_from,
)

pytestmark = [pytest.mark.cuda, pytest.mark.ray]


def test_there_can_be_graphs():
    assert CountedGraph.why_not(DEVICE) == ""
    assert ON == "cpu" or CountedGraph.why_not(torch.device("cpu"))


def test_replays_are_eager_steps_bit_for_bit():
    assert_replays_are_steps(CountedGraph, ON)


def test_numbers_and_addresses_are_those_of_the_capture():
    count, total = 0, torch.zeros((), device=DEVICE)
    holder = {"x": torch.ones(2, device=DEVICE)}

    def work():
        nonlocal count
        count += 1
        total.add_(count)
        return holder["x"] * 2

    graph = CountedGraph(DEVICE)
    graph.warm_up(work)
    result = graph.capture(work)
    holder["x"] = torch.full((2,), 5.0, device=DEVICE)
    for _ in range(3):
        graph.replay()
    assert count == 2 and total.item() == 1 + 3 * 2 and result.tolist() == [2.0, 2.0]


def test_a_capture_that_waits_for_the_device_fails():
    """And leaves a device on which the next one works."""
    x = torch.ones(3, device=DEVICE)
    with pytest.raises((RuntimeError, CaptureError)):
        CountedGraph(DEVICE).capture(lambda: x * x.sum().item())
    graph = CountedGraph(DEVICE)
    graph.warm_up(lambda: x * 2)
    result = graph.capture(lambda: x * 2)
    graph.replay()
    assert result.tolist() == [2.0] * 3


@contextlib.contextmanager
def no_waiting():
    """On a GPU, an error for whoever has the host wait for it."""
    if ON != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Hurried(GraphLearner):
    """Its updates are made without waiting for the device, once `hurries` is set."""

    hurries = False

    def _update(self, *args, **kwargs):
        with no_waiting() if self.hurries else contextlib.nullcontext():
            return super()._update(*args, **kwargs)


@pytest.mark.parametrize("ring", ["cpu", ON] if ON == "cuda" else ["cpu"], ids=lambda ring: f"rows-{ring}")
@pytest.mark.parametrize("member", MEMBERS)
def test_updates_never_wait_for_the_device(member, ring):
    """Between the first update of a call and the look at its flag; after warm-up and captures."""
    game = game_of(member, "discrete")
    learner = learner_of(on_device(config_of_member(member, game), graph=True).training(learner_class=Hurried))
    rows = ring_of(game, learner.schema, ring)
    update_from(learner, rows, calls=range(5), updates=6)
    before, captured, replayed = weights_of(learner), CountedGraph.captured, CountedGraph.replayed
    learner.hurries = True
    update_from(learner, rows, calls=range(5, 8), updates=6)
    after = weights_of(learner)
    assert (CountedGraph.captured - captured, CountedGraph.replayed - replayed) == (0, 18)
    assert not any(torch.equal(after[key], before[key]) for key in before)
