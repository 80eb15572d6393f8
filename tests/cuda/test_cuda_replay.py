"""Prioritized and n-step replay on the GPU are the CPU's: places, rows, weights, trees and updates."""

from __future__ import annotations

import numpy as np
import on_cuda
import pytest
import torch
from histories import History, schema_of
from on_cuda import GRAPH, ON, both, config_of_member, game_of
from reference.weighed import weighed

from rllib_maddpg.replay import PrioritizedJointReplayBuffer

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
