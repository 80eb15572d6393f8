"""Passes over several Learners on the GPU make the updates that each Learner would make alone on the CPU."""

from __future__ import annotations

import pytest
import torch
from learner_games import env_steps, weights_of
from on_cuda import (
    GRAPH,
    KINDS,
    MEMBERS,
    NEWEST,
    ON,
    ROWS,
    CountedGraph,
    config_of_member,
    doubled,
    game_of,
    learner_of,
    on_cpu,
    on_device,
    ring_of,
)

from rllib_maddpg.learning.slot_stack import SlotStack
from rllib_maddpg.learning.slot_updates import SlotCall, SlotUpdates
from rllib_maddpg.rows.joint_batch import JointBatch

pytestmark = [pytest.mark.cuda, pytest.mark.ray]

OWN = ({}, {"lr": 0.00390625, "tau": 0.05, "gamma": 0.9}, {"actor_output_reg": 0.1, "grad_clip": 0.2})


@pytest.fixture(autouse=True)
def as_one_everywhere(monkeypatch):
    monkeypatch.setattr(SlotStack, "pays", lambda self, due, rows: True)


def configs_of(member, game):
    return [config_of_member(member, game, **own).debugging(seed=3 + k) for k, own in enumerate(OWN)]


def call_of(learner, ring, k, double):
    """The k-th call: two updates, the second of which reports."""

    def as_double(batch):
        rows = batch.joint_rows
        return doubled(learner.schema, rows) if double else JointBatch(learner.schema, rows)

    batch = as_double(ring.draw(1, 2, ROWS)[0])
    if learner.config.needs_newest_rows:
        batch.newest = as_double(ring.latest(NEWEST))
    return SlotCall(learner, learner.begin_call(batch, env_steps(60 * k), ROWS, False))


def made_alone(configs, game, double):
    """Weights before and after ten calls."""
    learners = [learner_of(config, double) for config in configs]
    rings = [ring_of(game, learner.schema, "cpu") for learner in learners]
    start = [weights_of(learner) for learner in learners]
    for k in range(10):
        # The last trial is due in every other call.
        for learner, ring in list(zip(learners, rings, strict=True))[: 3 if k % 2 else 2]:
            call = call_of(learner, ring, k, double)
            while not call.is_over:
                learner._update(learner.next_minibatch(call.call))
                learner.has_made_update(call.call)
            learner.end_call(call.call)
    return start, [weights_of(learner) for learner in learners]


@GRAPH
@pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("member", MEMBERS)
def test_passes_are_the_updates_of_each(member, kind, double, graph):
    game, atol = game_of(member, kind), 1e-8 if double else 1e-4
    configs = configs_of(member, game)
    start, expected = made_alone(configs, game, double)
    learners = [learner_of(on_device(config, graph), double) for config in configs]
    rings = [ring_of(game, learner.schema, ON) for learner in learners]
    slots = SlotUpdates()
    for learner in learners:
        assert learner._device.type == ON
        slots.add(learner)
    replayed = CountedGraph.replayed
    for k in range(10):
        due = list(zip(learners, rings, strict=True))[: 3 if k % 2 else 2]
        calls = [call_of(learner, ring, k, double) for learner, ring in due]
        while left := [call for call in calls if not call.is_over]:
            slots.make(left)
        for call in calls:
            assert call.error is None
            call.learner.end_call(call.call)
    assert (slots.passes, slots.updates) == (20, 50)
    # Kinds with and without reports, with and without actors: two of each are made as they come.
    assert (CountedGraph.replayed - replayed >= 10) == graph
    for learner, before, theirs in zip(learners, start, expected, strict=True):
        for key, ours in on_cpu(weights_of(learner)).items():
            size = theirs[key].norm()
            assert (theirs[key] - before[key]).norm() > 50 * atol * size, f"{key} has hardly moved"
            assert (ours - theirs[key]).norm() <= atol * size, key


@GRAPH
def test_nan_of_one_slot(graph):
    game = game_of("MADDPG", "discrete")
    learners = [learner_of(on_device(config, graph)) for config in configs_of("MADDPG", game)]
    rings = [ring_of(game, learner.schema, ON) for learner in learners]
    slots = SlotUpdates()
    for learner in learners:
        slots.add(learner)

    def make(k):
        calls = [call_of(learner, ring, k, False) for learner, ring in zip(learners, rings, strict=True)]
        while left := [call for call in calls if not call.is_over]:
            slots.make(left)
        for call in calls:
            if call.error is None:
                call.learner.end_call(call.call)
        return [call.error for call in calls]

    assert not any(any(make(k)) for k in range(4))
    rings[1]._columns["rewards"][:] = torch.nan
    before = weights_of(learners[1])
    errors = make(4)
    assert [isinstance(error, ValueError) and "rewards" in str(error) for error in errors] == [False, True, False]
    assert all(torch.equal(value, before[key]) for key, value in weights_of(learners[1]).items())
    assert all(torch.isfinite(value).all() for learner in learners for value in weights_of(learner).values())
