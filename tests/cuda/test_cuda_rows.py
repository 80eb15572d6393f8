"""Rows on the GPU are the CPU's, and so are the random numbers by which they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from on_cuda import DEVICE, ON
from sample_rows import SCHEMA, rows

from rllib_maddpg.replay.buffer import JointReplayBuffer
from rllib_maddpg.rows import counter_random

pytestmark = [pytest.mark.cuda, pytest.mark.ray]

CAPACITY = 50


def rings() -> tuple[JointReplayBuffer, JointReplayBuffer]:
    return tuple(JointReplayBuffer(SCHEMA, CAPACITY, seed=3, device=device) for device in ("cpu", ON))


def drawn(ring: JointReplayBuffer, updates: int = 3, size: int = 8) -> torch.Tensor:
    """As the Learner on the GPU gets them. They are compared bit by bit: columns of whole numbers may be NaN as floats."""
    (batch,) = ring.draw(1, updates, size)
    return batch.to(DEVICE, SCHEMA).joint_rows.cpu().contiguous().view(torch.int32)


def latest(ring: JointReplayBuffer, count: int) -> torch.Tensor:
    return ring.latest(count).to(DEVICE, SCHEMA).joint_rows.cpu().contiguous().view(torch.int32)


def test_a_ring_on_the_gpu_gives_the_rows_of_one_on_the_cpu():
    """Also when rows lie in two pieces, when a rollout is longer than the ring, and when there are few."""
    cpu, device = rings()
    assert (cpu.device.type, device.device.type) == ("cpu", ON)
    first = 0
    for count in (7, 30, 20, 1, 49, 120, 13):
        for ring in (cpu, device):
            ring.add(rows(first, first + count))
        first += count
        assert len(cpu) == len(device) and cpu.next_place == device.next_place
        for _ in range(2):
            assert torch.equal(drawn(cpu), drawn(device)), first
        for newest in (1, 12, CAPACITY):
            assert torch.equal(latest(cpu, newest), latest(device, newest)), (first, newest)


@pytest.mark.parametrize("there", [True, False], ids=["to the GPU", "from the GPU"])
def test_a_ring_goes_to_another_device(there):
    """With its rows, their places and what will be drawn next."""
    source, target = rings() if there else reversed(rings())
    for ring in (source, target):
        ring.add(rows(0, 70))
        drawn(ring)
    target.add(rows(100, 120))
    state = source.get_state()
    assert all(isinstance(column, np.ndarray) for column in state["columns"].values())
    target.set_state(state)
    for ring in (source, target):
        ring.add(rows(200, 211))
    for _ in range(3):
        assert torch.equal(drawn(source), drawn(target))


def test_rows_for_two_learners_are_those_for_one():
    """A ring on a GPU has a Learner in its own process only; its draws are the same for all that."""
    cpu, device = rings()
    for ring in (cpu, device):
        ring.add(rows(0, CAPACITY))
    shards = [
        [batch.to(DEVICE, SCHEMA).joint_rows.cpu().view(torch.int32) for batch in ring.draw(2, 3, 4)] for ring in (cpu, device)
    ]
    assert all(torch.equal(one, other) for one, other in zip(*shards, strict=True))


def test_counted_random_numbers_are_equal_to_the_bit():
    """And uniform ones, which are exact; what a logarithm or a cosine makes of them, to rounding."""
    key = counter_random.key_of(7, "rows")
    for number in (0, 1, 12345, 2**40):
        elements = np.arange(5000, dtype=np.int64) * 977
        bits = [
            counter_random.random_bits(key, torch.tensor([number], device=d), torch.from_numpy(elements).to(d))
            for d in ("cpu", ON)
        ]
        expected = counter_random.random_bits(key, np.array([number]), elements)
        assert torch.equal(bits[0], bits[1].cpu()) and np.array_equal(bits[0].numpy(), expected)
        for size in (1, 3, 1000, 2**31 + 11):
            cpu, device = (counter_random.below(b, size) for b in bits)
            assert torch.equal(cpu, device.cpu()) and np.array_equal(cpu.numpy(), counter_random.below(expected, size))
        for dtype, rtol in ((torch.float32, 1e-5), (torch.float64, 1e-13)):
            cpu, device = (counter_random.uniform(b, dtype) for b in bits)
            assert torch.equal(cpu, device.cpu())
            for noise in (counter_random.gumbel, counter_random.normal):
                cpu, device = (noise(b, dtype) for b in bits)
                torch.testing.assert_close(device.cpu(), cpu, rtol=rtol, atol=rtol)
