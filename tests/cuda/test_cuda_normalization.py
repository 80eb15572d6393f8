"""Normalized rows and layer norm on the GPU: updates are the CPU's, eager, as graphs, and of several Learners in one pass."""

from __future__ import annotations

import numpy as np
import on_cuda
import pytest
import torch
from learner_games import env_steps, weights_of
from on_cuda import GRAPH, ROWS, CountedGraph, both, config_of_member, game_of, learner_of, on_device, ring_of, rows_of

from rllib_maddpg.learning.slot_stack import SlotStack
from rllib_maddpg.learning.slot_updates import SlotCall, SlotUpdates
from rllib_maddpg.rows.joint_batch import JointBatch

pytestmark = [pytest.mark.cuda, pytest.mark.ray]

SETTINGS = {"normalize_observations": True, "normalize_rewards": True}


def config_of(member, game, **settings):
    config = config_of_member(member, game, **SETTINGS, **settings)
    return config.rl_module(model_config={**config._model_config, "use_layer_norm": True})


def moments_of(learner):
    modules = {m: learner.module[m].unwrapped() for m in learner.layout.modules}
    return {(m, name): value.cpu().clone() for m, own in modules.items() for name, value in own.named_buffers()}


def assert_close(ours, theirs, atol):
    for key, value in moments_of(theirs).items():
        torch.testing.assert_close(moments_of(ours)[key], value, rtol=atol, atol=atol)
    assert on_cuda.difference(ours, theirs) < atol


@GRAPH
@pytest.mark.parametrize("shape", [{}, {"shared": True, "n_agents": 4}, {"frozen": True}], ids=["apart", "shared", "frozen"])
@pytest.mark.parametrize("member", ["MATD3", "InferredMADDPG"])
def test_updates_are_the_cpus(member, shape, graph):
    """To 1e-8 in float64."""
    game = game_of(member, "discrete", **shape)
    cpu, device = both(config_of(member, game), graph, double=True)
    start, replayed = weights_of(cpu), CountedGraph.replayed
    for learner in (cpu, device):
        on_cuda.update(learner, game, range(10), double=True)
    assert (CountedGraph.replayed > replayed + 4) == graph
    assert_close(device, cpu, 1e-8)
    for m in game.modules:
        counted = sum(float(game.batch(ROWS, k)[a].alive.sum()) for k in range(10) for a in game.reference().agents_of(m))
        assert float(moments_of(device)[m, "moments.obs_count"]) == counted
    assert all((weights_of(cpu)[key] - own).norm() > 1e-3 for key, own in start.items() if key[0] not in game.frozen)


@GRAPH
@pytest.mark.parametrize("skips", [False, True], ids=["raises", "skips"])
def test_bad_updates_leave_moments_as_they_were(skips, graph):
    """The third of four updates of a call is bad; none after it is made, or only that one is left out."""
    game = game_of("MADDPG", "discrete")
    config = config_of("MADDPG", game).framework(torch_skip_nan_gradients=skips)
    cpu, device = both(config, graph, double=True)
    for learner in (cpu, device):
        on_cuda.update(learner, game, range(6), double=True)  # by then there is a graph
        rows = torch.cat([rows_of(game, learner.schema, k, double=True).joint_rows for k in range(6, 10)])
        bad = JointBatch(learner.schema, rows)
        bad.columns["rewards"][2 * ROWS, 0] = np.nan
        call = {"batch": bad, "minibatch_size": ROWS, "timesteps": env_steps(600)}
        if skips:
            learner.update(**call)
        else:
            with pytest.raises(ValueError, match="column 'rewards' of module 'm0'"):
                learner.update(**call)
    assert_close(device, cpu, 1e-8)
    sound = [*range(8), 9] if skips else range(8)
    counted = sum(float(game.batch(ROWS, k)[game.reference().agents_of("m0")[0]].alive.sum()) for k in sound)
    assert float(moments_of(device)["m0", "moments.obs_count"]) == counted


@GRAPH
def test_passes_over_several_learners_are_each_learners(graph, monkeypatch):
    """Moments of their own; the third is due in every other pass, and bad once."""
    monkeypatch.setattr(SlotStack, "pays", lambda self, due, rows: True)
    game = game_of("InferredMADDPG", "discrete")
    config = config_of("InferredMADDPG", game, actor_lr=2**-7).framework(torch_skip_nan_gradients=True)
    configs = [config.copy(copy_frozen=False).debugging(seed=k) for k in range(3)]
    alone = [learner_of(own, double=True) for own in configs]
    ours = [learner_of(on_device(own, graph), double=True) for own in configs]
    slots = SlotUpdates()
    for learner in ours:
        slots.add(learner)
    rings = [[ring_of(game, learner.schema, "cpu") for learner in each] for each in (alone, ours)]
    for each in rings:
        for k, ring in enumerate(each):
            ring.stream.key += 17 * k

    def call_of(learner, ring, k, bad):
        (batch,) = ring.draw(1, 1, ROWS)
        batch = JointBatch(learner.schema, batch.joint_rows.double())
        batch.newest = JointBatch(learner.schema, ring.latest(12).joint_rows.double())
        if bad:
            batch.columns["obs"][0, 0] = np.nan
        return learner.begin_call(batch, env_steps(60 * k), ROWS, False)

    for k in range(8):
        due = [0, 1, 2] if k % 2 else [0, 1]
        calls = [SlotCall(ours[i], call_of(ours[i], rings[1][i], k, i == 2 and k == 5)) for i in due]
        slots.make(calls)
        assert not any(call.error for call in calls)
        for i in due:
            call = call_of(alone[i], rings[0][i], k, i == 2 and k == 5)
            alone[i]._update(alone[i].next_minibatch(call))
            alone[i].has_made_update(call)
        for call in calls:
            call.learner.end_call(call.call)
    assert slots.passes == 8
    for one, other in zip(ours, alone, strict=True):
        assert_close(one, other, 1e-8)
    counts = [float(moments_of(learner)["m0", "moments.obs_count"]) for learner in ours]
    assert len(set(counts)) == 3 and counts[2] < counts[0] / 2
    slots.remove(ours[0])  # who leaves keeps its own
    assert_close(ours[0], alone[0], 1e-8)
    slots.add(ours[0])
    assert_close(ours[0], alone[0], 1e-8)
