"""The ring: what stays, what is drawn, how it splits, what a checkpoint holds."""

import numpy as np
import pytest
import torch
from sample_rows import LAYOUT, SCHEMA, arrays, check_rows, rows

from rllib_maddpg.replay import JointReplayBuffer
from rllib_maddpg.replay.buffer import check_memory
from rllib_maddpg.rows.schema import RowSchema, bytes_per_kept_row


def numbers(buffer):
    """Row numbers held, from the newest."""
    positions = (buffer._next - 1 - np.arange(len(buffer))) % buffer.capacity
    return [int(buffer._columns["obs"][i, 0]) for i in positions]


def test_the_ring_keeps_the_newest_rows():
    buffer = JointReplayBuffer(SCHEMA, capacity=10, seed=0)
    for first, last in [(0, 4), (4, 9), (9, 12)]:
        buffer.add(rows(first, last))
    assert len(buffer) == 10 and buffer.num_rows_added == 12
    assert numbers(buffer) == [11, 10, 9, 8, 7, 6, 5, 4, 3, 2]
    buffer.add(rows(12, 37))
    assert numbers(buffer) == list(range(36, 26, -1))


def test_draws_are_uniform_and_rows_whole():
    buffer = JointReplayBuffer(SCHEMA, capacity=8, seed=1)
    buffer.add(rows(0, 13))
    drawn = arrays(buffer.sample(40_000))
    row = np.floor(drawn["obs"][:, 0] + 1e-3).astype(int)
    count = np.bincount(row, minlength=13)
    assert not count[:5].any()
    np.testing.assert_allclose(count[5:], 5000, atol=330)  # 5 standard deviations
    check_rows(drawn, row, atol=1e-5)


def test_a_batch_has_one_row_for_each_env_step_in_every_module():
    buffer = JointReplayBuffer(SCHEMA, capacity=100, seed=2)
    buffer.add(rows(0, 100))
    batch = buffer.sample(16)
    assert len(batch) == 16 and set(batch.modules) == {"m", "n"}
    batch = batch.modules
    shapes = {m: {c: v.shape for c, v in batch[m].items()} for m in "mn"}
    assert shapes["m"]["obs"] == shapes["m"]["new_obs"] == (16, 2, 2) and shapes["m"]["actions"] == (16, 2, 3)
    assert shapes["n"]["obs"] == (16, 1, 3) and shapes["n"]["actions"] == (16, 1, 2)
    for column in ("rewards", "terminateds", "alive", "next_alive", "truncateds"):
        assert shapes["m"][column] == (16, 2) and shapes["n"][column] == (16, 1)
    assert shapes["m"]["lives"] == (16, 2, 2) and shapes["n"]["maybe"] == (16, 1, 3)
    assert all(shapes[m]["t"] == (16, 1) and shapes[m]["new_pixels"] == (16, 7) for m in "mn")
    types = {name: getattr(torch, column.dtype) for name, column in SCHEMA.columns.items()}
    assert all(batch[m][name].dtype == types[name] for m in "mn" for name in batch[m])
    assert torch.equal(batch["m"]["obs"][:, 0, 0].floor(), batch["n"]["rewards"][:, 0].floor())
    # Agent c of module m is the second in the layout: columns 2 and 3 of x.
    np.testing.assert_allclose(batch["m"]["obs"][:, 1, 0] - batch["m"]["obs"][:, 0, 0], 0.02, atol=1e-5)


def test_an_empty_buffer_says_so():
    with pytest.raises(ValueError, match="replay buffer is empty"):
        JointReplayBuffer(SCHEMA, 5).sample(1)


def test_memory_is_what_the_columns_need():
    buffer = JointReplayBuffer(SCHEMA, capacity=50)
    # x and x' of 7, codes of 8; rewards, terminateds, truncateds, alive, next_alive of 3 agents; episode and t: 4 bytes each.
    plain = 4 * (2 * 7 + 8 + 5 * 3 + 2)
    assert RowSchema(LAYOUT).bytes_per_row == bytes_per_kept_row(7, 8, 3) == plain
    # Users': lives; 7 bytes twice, which take two words each; contexts of 3 twice; maybe as x.
    assert buffer.bytes_per_row == bytes_per_kept_row(7, 8, 3, SCHEMA.extra) == plain + 4 * (3 * 2 + 2 * 2 + 2 * 3 + 7)
    assert buffer._rows.nbytes == 50 * buffer.bytes_per_row


def test_a_gpu_that_cannot_hold_the_rows(monkeypatch):
    """Device, bytes of a row, and the largest capacity; what PyTorch keeps for later counts as free."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * 10**6, 10**9))
    held = {"memory_reserved": 3 * 10**6, "memory_allocated": 10**6}
    for name, size in held.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, size=size: size)
    check_memory(50_000, 100, "cuda:0")
    text = r"=50001 rows of 100 bytes need 0.0 GiB when full, but device 'cuda:0' has 0.0 GiB .* at most 40000\.$"
    with pytest.raises(ValueError, match=text):
        check_memory(50_001, 100, "cuda:0")


def test_state_holds_the_filled_part_and_sampling_goes_on_alike():
    buffer = JointReplayBuffer(SCHEMA, capacity=1000, seed=3)
    buffer.add(rows(0, 40))
    buffer.sample(7)
    state = buffer.get_state()
    assert state["columns"]["obs"].shape == (40, 7)
    other = JointReplayBuffer(SCHEMA, capacity=1000, seed=99)
    other.set_state(state)
    for b in (buffer, other):
        b.add(rows(40, 45))
    one, two = buffer.sample(50), other.sample(50)
    assert torch.equal(one.joint_rows.view(torch.int32), two.joint_rows.view(torch.int32))
    check_rows(arrays(two), np.floor(two.columns["obs"][:, 0].numpy() + 1e-3).astype(int))
    assert numbers(other) == numbers(buffer) and other.num_rows_added == 45


@pytest.mark.parametrize(("capacity", "kept"), [(20, range(49, 29, -1)), (30, range(49, 19, -1)), (64, range(49, 19, -1))])
def test_another_capacity_keeps_the_newest_rows_in_order(capacity, kept):
    buffer = JointReplayBuffer(SCHEMA, capacity=30)
    buffer.add(rows(0, 50))
    other = JointReplayBuffer(SCHEMA, capacity=capacity)
    other.set_state(buffer.get_state())
    assert numbers(other) == list(kept)
    other.add(rows(50, 53))
    assert numbers(other)[:4] == [52, 51, 50, 49]


def test_nan_is_named_by_agent_quantity_and_step():
    rollout = rows(0, 5)
    rollout.check_finite(SCHEMA)
    rollout.columns["obs"][3, 5] = np.nan
    with pytest.raises(ValueError, match=r"The observation of agent 'b' is nan at step 3 of the rollout of env runner 0"):
        rollout.check_finite(SCHEMA)
    rollout = rows(0, 5)
    rollout.columns["rewards"][2, 1] = -np.inf
    with pytest.raises(ValueError, match=r"The reward of agent 'c' is -inf at step 2"):
        rollout.check_finite(SCHEMA)
