"""Prioritized and n-step replay on the GPU are the CPU's: places, rows, weights, trees and updates."""

from __future__ import annotations

import numpy as np
import on_cuda
import pytest
import torch
from histories import History, schema_of
from image_histories import ImageHistory, image_schema
from on_cuda import GRAPH, ON, both, config_of_member, game_of
from reference.weighed import weighed

from rllib_maddpg.replay import JointReplayBuffer, PrioritizedJointReplayBuffer

pytestmark = [pytest.mark.cuda, pytest.mark.ray]

REPLAY = {"n_step": 3, "replay_buffer_config": {"type": "PrioritizedJointReplayBuffer"}}


@GRAPH
@pytest.mark.parametrize("member", ["MADDPG", "MATD3", "InferredMADDPG"])
def test_updates_are_the_cpus(member, graph):
    """To 1e-8 of a network's weights, in float64."""
    game = weighed(game_of(member, "discrete"))
    cpu, device = both(config_of_member(member, game, **REPLAY), graph, double=True)
    for learner in (cpu, device):
        learner.collect_td_errors("max")
        on_cuda.update(learner, game, range(8), double=True)
    assert on_cuda.difference(device, cpu) < 1e-8
    np.testing.assert_allclose(device.take_td_errors(), cpu.take_td_errors(), rtol=1e-5, atol=1e-6)


def test_rings_of_images_are_the_cpus():
    """Images that lie beside the ring, in a pool that grows and shrinks, and states that go from one device to the other."""
    schema, history = image_schema(3), ImageHistory(seed=6)
    cpu, device = (JointReplayBuffer(schema, 50, seed=1, device=where) for where in ("cpu", ON))

    def check():
        for one, two in [(cpu.draw(1, 2, 32)[0], device.draw(1, 2, 32)[0]), (cpu.latest(50), device.latest(50))]:
            assert two.joint_rows.device.type == ON
            assert torch.equal(one.joint_rows.view(torch.int32), two.joint_rows.cpu().view(torch.int32))

    sizes = set()
    for deaths in (0.9, 0.0):
        history.deaths = deaths
        for rollout in history.rollouts(30):
            for ring in (cpu, device):
                ring.add(rollout)
            check()
            sizes.add(len(device._next_obs._pool.words))
    assert len(sizes) > 1
    states = [ring.get_state() for ring in (cpu, device)]
    for part in ("columns", "beside", "alone"):
        for name, values in states[0][part].items():
            np.testing.assert_array_equal(values, states[1][part][name], err_msg=name)
    for ring, state in zip((cpu, device), reversed(states), strict=True):
        ring.set_state(state)
    check()


def test_draws_and_feedback_are_the_cpus():
    """To the bit, but for weights, which are powers: to 1e-6."""
    schema, history = schema_of(3, weighs=True), History(seed=2)
    cpu, device = (PrioritizedJointReplayBuffer(schema, 20_000, seed=1, device=where) for where in ("cpu", ON))
    rng = np.random.default_rng(0)
    for k, rollout in enumerate(history.rollouts(60)):
        rollouts = (cpu, device)
        for ring in rollouts:
            ring.add(rollout)
        drawn, other = (ring.draw(2, 3, 8) for ring in rollouts)
        for mine, theirs in zip(drawn, other, strict=True):
            assert theirs.joint_rows.device.type == ON
            columns = {name: value.cpu() for name, value in theirs.columns.items()}
            np.testing.assert_allclose(columns["weights"], mine.columns["weights"], rtol=1e-6)
            assert all(torch.equal(columns[name], value) for name, value in mine.columns.items() if name != "weights"), k
        errors = [rng.random(24).astype(np.float32) for _ in range(2)]
        for ring in rollouts:
            ring.feedback(errors)
    for mine, theirs in zip(cpu._tree._levels, device._tree._levels, strict=True):
        assert torch.equal(mine, theirs.cpu())
    restored = PrioritizedJointReplayBuffer(schema, 20_000, device=ON)
    restored.set_state(cpu.get_state())
    mine, theirs = cpu.draw(1, 1, 50)[0], restored.draw(1, 1, 50)[0]
    assert torch.equal(mine.columns["obs"], theirs.columns["obs"].cpu())
