"""States go from the CPU to the GPU and back, and a restored Learner on the GPU goes on bit for bit."""

from __future__ import annotations

import pickle

import numpy as np
import on_cuda
import pytest
import torch
import tree
from learner_games import weights_of
from on_cuda import DEVICE, GRAPH, CountedGraph, both, config_of_member, game_of, learner_of, on_device, same, update

pytestmark = [pytest.mark.cuda, pytest.mark.ray]


def state_of(learner) -> dict:
    """As a checkpoint file has it."""
    return pickle.loads(pickle.dumps(learner.get_state()))


@GRAPH
@pytest.mark.parametrize("member", ["MADDPG", "MATD3", "InferredMADDPG"])
def test_a_state_goes_to_the_gpu_and_back(member, graph):
    """In float64, where devices agree: three updates on the CPU, eight on the other, three on the CPU again.

    RLlib rounds states to float32, so each side takes the state of the one that has it.
    """
    game = game_of(member, "discrete")
    config = config_of_member(member, game)
    cpu, device = both(config, graph, double=True)
    third = learner_of(config, double=True)
    update(cpu, game, range(3), double=True)
    state = state_of(cpu)
    for learner in (cpu, device):
        learner.set_state(state)
    assert on_cuda.difference(device, cpu) == 0.0
    for learner in (cpu, device):
        update(learner, game, range(3, 11), double=True)
    assert on_cuda.difference(device, cpu) < 1e-8
    state = state_of(device)
    for learner in (cpu, device, third):
        learner.set_state(state)
        update(learner, game, range(11, 14), double=True)
    assert on_cuda.difference(third, cpu) == 0.0
    assert on_cuda.difference(device, cpu) < 1e-8


def test_a_state_holds_nothing_of_the_gpu():
    """So that a machine without one can read it."""
    game = game_of("MATD3", "discrete")
    learner = learner_of(on_device(config_of_member("MATD3", game)))
    update(learner, game, range(2))
    leaves = tree.flatten(learner.get_state())
    assert sum(isinstance(leaf, np.ndarray) for leaf in leaves) > 50
    assert all(leaf.device.type == "cpu" for leaf in leaves if isinstance(leaf, torch.Tensor))
    rates = [leaf for path, leaf in tree.flatten_with_path(learner.get_state()) if path[-1] == "lr"]
    assert rates and all(isinstance(rate, float) for rate in rates)


@GRAPH
@pytest.mark.parametrize("into", ["fresh", "itself"])
@pytest.mark.parametrize("member", ["MADDPG", "MATD3", "InferredMADDPG"])
def test_a_restored_learner_goes_on_bit_for_bit(member, into, graph):
    """In float32, with rates by a schedule; also where graphs of another past are at hand already."""
    game = game_of(member, "discrete")
    config = on_device(config_of_member(member, game, actor_lr=[[0, 0.01], [900, 0.001]]), graph)
    learner = learner_of(config)
    update(learner, game, range(9))
    state, at_state = state_of(learner), weights_of(learner)
    update(learner, game, range(9, 18))
    expected, restored = weights_of(learner), learner
    if into == "fresh":
        restored = learner_of(config.copy(copy_frozen=False).debugging(seed=8))
    captured = CountedGraph.captured
    restored.set_state(state)
    assert same(weights_of(restored), at_state)
    update(restored, game, range(9, 18))
    ours = weights_of(restored)
    assert same(ours, expected)
    assert all(value.device.type == DEVICE.type and not torch.equal(value, at_state[key]) for key, value in ours.items())
    assert (CountedGraph.captured > captured) == (graph and into == "fresh"), "captured without a need"
