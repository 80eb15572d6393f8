"""Rows on their way into the ring, on the CPU and on a GPU."""

import numpy as np
import pytest
import torch
from on_cuda import ON
from sample_rows import SCHEMA, rows

from rllib_maddpg.replay import JointReplayBuffer
from rllib_maddpg.replay.upload import RingUpload

each_device = pytest.mark.parametrize("device", ["cpu", pytest.param(ON, marks=pytest.mark.cuda, id="gpu")])
on_a_gpu_only = pytest.mark.skipif(ON == "cpu", reason="asks CUDA itself")


@each_device
def test_rows_go_on_at_the_front(device):
    ring = torch.zeros(5, 2, device=device)
    upload, expected = RingUpload(ring), np.zeros((5, 2), np.float32)
    for k, (at, count) in enumerate([(0, 3), (3, 2), (4, 3), (2, 0), (1, 5)]):
        new = np.arange(2.0 * count, dtype=np.float32).reshape(count, 2) + 10 * k
        new.flags.writeable = False  # as Ray's are
        upload.write(new, at)
        expected[(at + np.arange(count)) % 5] = new
        with upload as held:
            np.testing.assert_array_equal(held.cpu().numpy(), expected)
    places = upload.places(np.array([4, 0]))
    assert places.dtype == torch.int64 and places.device == ring.device and places.tolist() == [4, 0]


@each_device
def test_all_bits_arrive(device):
    """Whole numbers among the columns may be NaN as floats."""
    ring = JointReplayBuffer(SCHEMA, 20, seed=1, device=device)
    ring.add(rows(0, 13))
    there = ring.latest(13).joint_rows.cpu()
    assert torch.equal(there.view(torch.int32), torch.from_numpy(rows(0, 13).rows.copy()).view(torch.int32))


@pytest.mark.cuda
def test_a_ring_on_a_gpu_draws_what_one_on_the_cpu_draws():
    """Rows are overwritten and drawn in turn, with no wait in between, behind work that keeps the GPU busy."""
    one, two = (JointReplayBuffer(SCHEMA, 1000, seed=3, device=device) for device in ("cpu", ON))
    busy = torch.randn(size := 4000 if ON == "cuda" else 40, size, device=ON)
    drawn = []
    for k in range(60):
        for ring in (one, two):
            ring.store([rows(300 * k, 300 * k + 170), rows(300 * k + 170, 300 * k + 300)])
        busy = torch.tanh(busy @ busy)
        drawn.append([ring.draw(2, 3, 64) for ring in (one, two)])
    for expected, found in drawn:
        for here, there in zip(expected, found, strict=True):
            assert there.joint_rows.device.type == ON
            assert torch.equal(here.joint_rows.view(torch.int32), there.joint_rows.cpu().view(torch.int32))
    # States of one fit the other.
    states = [ring.get_state() for ring in (one, two)]
    for name, column in states[0]["columns"].items():
        np.testing.assert_array_equal(column, states[1]["columns"][name], err_msg=name)
    for ring, state in zip((one, two), reversed(states), strict=True):
        ring.set_state(state)
        ring.add(rows(5, 9))
    after = [ring.draw(1, 2, 500)[0].joint_rows.cpu().view(torch.int32) for ring in (one, two)]
    assert torch.equal(*after)


@on_a_gpu_only
@pytest.mark.cuda
def test_nothing_comes_back_from_a_gpu_and_the_host_does_not_wait():
    """PyTorch raises an error where something would wait."""
    ring = JointReplayBuffer(SCHEMA, 1000, seed=3, device="cuda")
    ring.add(rows(0, 600))
    ring.draw(1, 1, 64)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for k in range(20):
            ring.add(rows(k, k + 50))
            ring.draw(1, 4, 64)
            ring.latest(20)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_a_gpu_only
@pytest.mark.cuda
def test_rows_that_do_not_fit_the_gpu():
    free = torch.cuda.mem_get_info("cuda")[0]
    capacity = 2 * free // SCHEMA.bytes_per_row
    with pytest.raises(ValueError, match=r"GiB when full, but device 'cuda' has .* GiB available. Set a capacity of at most"):
        JointReplayBuffer(SCHEMA, capacity, device="cuda")
