"""Replay shards in actors: every row in one of them, uniform draws, what dies with a shard, other numbers of shards."""

import logging
import os
import time
from itertools import pairwise

import numpy as np
import pytest
import ray
import torch
from sample_rows import SCHEMA, arrays, check_rows, rows
from shards import end_shard

from rllib_maddpg.replay import JointReplayBuffer
from rllib_maddpg.replay.remote import RemoteRollout, ShardedBatch
from rllib_maddpg.replay.resharding import dealt, merged
from rllib_maddpg.replay.sharded import ShardedReplayBuffer
from rllib_maddpg.replay.update_stream import KEY, NUMBER
from rllib_maddpg.rows.joint_batch import JointBatch

pytestmark = pytest.mark.usefixtures("ray_session")

CAPACITY = 100


@pytest.fixture(scope="module")
def shared(ray_session):
    """Three shards (of 34, 33 and 33 rows), shared because processes take long to start; and their first state."""
    buffer = ShardedReplayBuffer(SCHEMA, CAPACITY, seed=4, num_shards=3)
    yield buffer, buffer.get_state()
    buffer.stop()


@pytest.fixture
def buffer(shared):
    """The shards, empty."""
    shared[0].set_state(shared[1])
    return shared[0]


def numbers(state):
    """Row numbers in a state of a buffer or of all of its shards, as `rows` made them."""
    columns = merged(state)["columns"]
    found = np.floor(columns["obs"][:, 0] + 1e-3).astype(int) if columns else np.arange(0)
    if columns:
        check_rows(columns, found)
    return found.tolist()


def same(one, two):
    """Whether rows are equal to the bit; some of their words would be NaN as floats."""
    return torch.equal(one.view(torch.int32), two.view(torch.int32))


def drawn_numbers(batch):
    rows = batch.gather()
    found = np.floor(rows[:, 0].numpy() + 1e-3).astype(int)
    check_rows(arrays(JointBatch(SCHEMA, rows)), found)
    return found


# ------------------------------------------------------------------------------------------ rows


def test_each_row_lies_in_one_shard(buffer):
    cuts = [0, 5, 6, 6, 20, 31, 44, 58]
    rollouts = [rows(a, b) for a, b in pairwise(cuts)]
    stored = buffer.store([RemoteRollout(r) if k % 2 else r for k, r in enumerate(rollouts)])
    assert [s.rows for s in stored] == [5, 1, 0, 14, 11, 13, 14] and not any(s.error or s.lost for s in stored)
    assert len(buffer) == buffer.num_rows_added == 58
    state = buffer.get_state()
    assert sorted(numbers(state)) == list(range(58))
    # Each fragment as a whole, to each shard in turn.
    held = [numbers(shard) for shard in state["shards"]]
    assert held == [[*range(5), *range(6, 20), *range(44, 58)], [5, *range(20, 31)], [*range(31, 44)]]


def test_each_shard_keeps_its_newest_rows(buffer):
    for k in range(30):
        buffer.add(rows(10 * k, 10 * k + 10))
    assert len(buffer) == CAPACITY and buffer.num_rows_added == 300
    held = numbers(buffer.get_state())
    # The last 10 fragments, but for their shards' different sizes.
    assert len(set(held)) == 100 and min(held) >= 180 and set(range(210, 300)) <= set(held)
    assert held == sorted(held) or min(held[-60:]) > min(held[:40])


def test_rows_that_are_not_finite_are_refused(buffer):
    bad = rows(0, 4)
    bad.columns["rewards"][2, 1] = np.nan
    bad.worker_index = 7
    stored = buffer.store([bad, rows(4, 9)])
    assert [s.rows for s in stored] == [0, 5] and "reward of agent 'c' is nan at step 2" in stored[0].error
    assert "env runner 7" in stored[0].error and sorted(numbers(buffer.get_state())) == list(range(4, 9))


# ------------------------------------------------------------------------------------------ draws


def test_draws_are_uniform_over_all_rows(buffer):
    fill(buffer)
    batches = buffer.draw(learners=2, updates=40, rows=1000)
    for batch in batches:
        assert (batch.counts.sum(1) == 1000).all()
        drawn = drawn_numbers(batch)
        np.testing.assert_allclose(np.bincount(drawn, minlength=40), 1000, atol=160)  # 5 standard deviations
        for part in drawn.reshape(40, 1000):
            # Each part by itself is a sample of all shards.
            share = np.array([(part < 3).sum(), ((part >= 3) & (part < 30)).sum(), (part >= 30).sum()]) / 1000
            np.testing.assert_allclose(share, [0.075, 0.675, 0.25], atol=0.075)
    # The number of rows from a shard varies as it does when rows are drawn one by one: as a binomial distribution.
    counts = np.concatenate([batch.counts for batch in batches])
    np.testing.assert_allclose(counts.var(0), 1000 * np.array([0.075 * 0.925, 0.675 * 0.325, 0.25 * 0.75]), rtol=0.8)
    assert not np.array_equal(drawn_numbers(batches[0]), drawn_numbers(batches[1]))


def test_parts_hold_the_rows_that_the_shards_sent():
    """By hand: 2 parts of 3 rows from 3 shards."""
    counts = np.array([[2, 0, 1], [1, 0, 2]])
    pieces = [np.float32([[1], [2], [3]]), None, np.float32([[7], [8], [9]])]
    batch = ShardedBatch([None if piece is None else ray.put(piece) for piece in pieces], counts)
    assert batch.gather().flatten().tolist() == [1, 2, 7, 3, 8, 9]


def test_rows_that_modules_share_out_are_in_any_order(buffer):
    """Every third row of an update by itself is a sample of all shards, too."""
    for first, last in [(0, 10), (10, 20), (20, 30)]:
        buffer.add(rows(first, last))
    (batch,) = buffer.draw(1, 200, 30, shuffled=True)
    drawn = drawn_numbers(batch).reshape(200, 30)
    assert np.array_equal(drawn, drawn_numbers(batch).reshape(200, 30))
    for d in range(3):
        own = (drawn[:, d::3] < 10).sum(1)  # of 10 rows those from the first shard
        np.testing.assert_allclose(own.mean(), 10 / 3, atol=0.55)
        np.testing.assert_allclose(own.var(), 10 * 2 / 9, rtol=0.5)
    # The same rows as in order.
    batch.seed = None
    assert np.array_equal(np.sort(drawn_numbers(batch).reshape(200, 30)), np.sort(drawn))


def test_a_seed_gives_the_same_draws_and_a_state_the_next_ones(buffer, shared):
    def fill_all():
        for k in range(4):
            buffer.add(rows(10 * k, 10 * k + 10))

    fill_all()
    first, again = buffer.sample(50).joint_rows, buffer.sample(50).joint_rows
    assert not same(first, again)
    state = buffer.get_state()
    following = buffer.sample(50).joint_rows
    buffer.set_state(shared[1])
    fill_all()
    assert same(first, buffer.sample(50).joint_rows)
    buffer.set_state(state)
    assert same(following, buffer.sample(50).joint_rows)
    buffer.add(rows(40, 50))  # to the shard whose turn it is
    assert numbers(buffer.get_state()["shards"][1])[-10:] == list(range(40, 50))


def fill(buffer):
    """Shards of 3, 27 and 10 rows."""
    for first, last in [(0, 3), (3, 30), (30, 40)]:
        buffer.add(rows(first, last))


@pytest.mark.parametrize("shuffled", [False, True])
def test_updates_and_learners_share_out_the_same_rows(buffer, shared, shuffled):
    """Several updates of one call are those of several calls; several Learners get the rows that one would get."""

    def draw(calls, learners, updates, per_learner):
        buffer.set_state(shared[1])
        fill(buffer)
        drawn = [buffer.draw(learners, updates, per_learner, shuffled) for _ in range(calls)]
        return [[drawn_numbers(batch).reshape(updates, per_learner) for batch in batches] for batches in drawn]

    ((together,),) = draw(1, 1, 4, 24)
    single = draw(4, 1, 1, 24)
    np.testing.assert_array_equal(together, np.concatenate([whole for (whole,) in single]))
    ((first, second),) = draw(1, 2, 4, 12)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(np.sort(np.hstack([first, second]), axis=1), np.sort(together, axis=1))


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_state_of_an_earlier_version_keeps_its_generators(buffer, shared, shuffled):
    fill(buffer)
    state = {key: value for key, value in buffer.get_state().items() if key not in (KEY, NUMBER)}
    state["shards"] = [{key: own[key] for key in own if key not in (KEY, NUMBER)} for own in state["shards"]]
    own, *theirs = (np.random.default_rng() for _ in range(4))
    for generator, saved in zip((own, *theirs), (state, *state["shards"]), strict=True):
        generator.bit_generator.state = saved["rng"]
    for _ in range(2):
        buffer.set_state(state)
        batches = buffer.draw(2, 3, 20, shuffled)
        counts = own.multinomial(20, np.array([3, 27, 10]) / 40, (2, 3))
        seeds = own.integers(2**62, size=2).tolist() if shuffled else [None, None]
        pieces = [
            [first + theirs[k].integers(0, size, n) for n in counts[:, :, k].sum(1)]
            for k, (first, size) in enumerate([(0, 3), (3, 27), (30, 10)])
        ]
        for learner, batch in enumerate(batches):
            assert np.array_equal(batch.counts, counts[learner]) and batch.seed == seeds[learner]
            part_of = np.concatenate([np.repeat(np.arange(3), counts[learner, :, k]) for k in range(3)])
            chance = np.random.default_rng(seeds[learner]).random(60) if shuffled else np.arange(60)
            expected = np.concatenate([piece[learner] for piece in pieces])[np.lexsort((chance, part_of))]
            assert drawn_numbers(batch).tolist() == expected.tolist()
        # Saved and restored once more, it still does.
        state = buffer.get_state()
        assert all(KEY not in saved and NUMBER not in saved for saved in (state, *state["shards"]))
    buffer.set_state(shared[1])
    assert KEY in buffer.get_state() and all(KEY in saved for saved in buffer.get_state()["shards"])


def test_to_resume_takes_the_number_only(buffer, shared):
    fill(buffer)
    for updates in (3, 1):
        buffer.draw(1, updates, 20)
    following = drawn_numbers(buffer.draw(1, 2, 20)[0])
    buffer.set_state(shared[1] | {NUMBER: 4})
    fill(buffer)
    assert drawn_numbers(buffer.draw(1, 2, 20)[0]).tolist() == following.tolist()
    # From a state of another number of shards: updates are counted on.
    buffer.set_state(shared[1] | {"shards": shared[1]["shards"][:2], NUMBER: 4, "next_shard": 0})
    buffer._next = 0
    fill(buffer)
    assert drawn_numbers(buffer.draw(1, 2, 20)[0]).tolist() == following.tolist()


def test_an_empty_buffer_says_so(buffer):
    with pytest.raises(ValueError, match="The replay buffer is empty"):
        buffer.sample(3)


# ------------------------------------------------------------------------------------------ other numbers of shards


def test_states_fit_other_numbers_of_shards(buffer):
    for k in range(12):  # more than fits
        buffer.add(rows(10 * k, 10 * k + 10))
    state = buffer.get_state()
    held = numbers(state)
    single = JointReplayBuffer(SCHEMA, 100, seed=0)
    single.set_state(state)
    assert numbers(single.get_state()) == held and single.num_rows_added == 120
    single.add(rows(120, 121))
    assert sorted(numbers(single.get_state())) == sorted([*held[1:], 120])  # the oldest is gone
    small = JointReplayBuffer(SCHEMA, 30, seed=0)
    small.set_state(state)
    assert set(numbers(small.get_state())) == set(held[-30:])
    assert min(held[-30:]) >= 85
    two = dealt(state, 2)
    assert sorted(numbers(two[0]) + numbers(two[1])) == sorted(held) and len(numbers(two[0])) == 50
    buffer.set_state(single.get_state())
    assert sorted(numbers(buffer.get_state())) == sorted([*held[1:], 120]) and len(buffer) == 100
    assert buffer.num_rows_added == 121


# ------------------------------------------------------------------------------------------ what dies


@ray.remote
class Sampler:
    """Samples a fragment that stays here."""

    def sample(self):
        return RemoteRollout(rows(0, 2000))  # too large to travel with the reply

    def pid(self):
        return os.getpid()


def test_a_fragment_can_be_lost_with_its_runner(buffer, caplog):
    sampler = Sampler.remote()
    lost = ray.get(sampler.sample.remote())
    ray.kill(sampler)
    with pytest.raises(ray.exceptions.OwnerDiedError):  # as soon as Ray knows
        while True:
            ray.get(lost.rows, timeout=60)
    with caplog.at_level(logging.WARNING, logger="rllib_maddpg.replay.sharded"):
        # The fifth goes to the same shard as the lost one, in the same request.
        stored = buffer.store([rows(0, 3), lost, rows(3, 6), rows(6, 9), rows(9, 13)])
    assert [(s.rows, s.lost) for s in stored] == [(3, False), (0, True), (3, False), (3, False), (4, False)]
    assert len(buffer) == buffer.num_rows_added == 13 and sorted(numbers(buffer.get_state())) == list(range(13))
    assert "lost with the env runner" in caplog.text


def test_a_shard_that_was_made_anew_unnoticed_is_told(buffer, caplog):
    for k in range(6):
        buffer.add(rows(10 * k, 10 * k + 10))
    end_shard(buffer, 1)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            assert ray.get(buffer._shards[1].size.remote()) == 0
            break
        except ray.exceptions.RayActorError:
            ray.wait([buffer._shards[1].size.remote()], timeout=1)
    with caplog.at_level(logging.WARNING):
        stored = buffer.store([rows(60, 65), rows(65, 70), rows(70, 75)])
    assert [s.rows for s in stored] == [5] * 3 and len(buffer) == 40 + 15
    assert "Shard 1 of the replay buffer died with its 20 rows and is back already, with 5." in caplog.text


def test_a_dead_shard_stops_nobody_and_comes_back_empty(buffer, caplog):
    for k in range(6):
        buffer.add(rows(10 * k, 10 * k + 10))
    in_flight = buffer.draw(1, 2, 300)[0]
    end_shard(buffer, 1)
    late = buffer.draw(1, 2, 300)[0]  # the driver does not know yet
    with caplog.at_level(logging.WARNING):
        # What was on its way to the dead one goes to another. Done at once, for Ray makes a new one in a moment.
        stored = buffer.store([rows(60, 65), rows(65, 70), rows(70, 75), rows(75, 80)])
        assert set(drawn_numbers(late)) == {*range(0, 10), *range(20, 40), *range(50, 60)}
        assert "replaced by others" in caplog.text
        assert len(drawn_numbers(in_flight)) == 600
    assert [s.rows for s in stored] == [5] * 4 and buffer.num_rows_added == 80
    assert "Shard 1 of the replay buffer died with its 20 rows" in caplog.text
    assert len(buffer) == 60 and set(range(60, 80)) <= set(numbers(buffer.get_state()))
    end = time.monotonic() + 60
    while buffer._away and time.monotonic() < end:
        ray.wait([buffer._away[1]], timeout=1)
        buffer.store([])
    assert "Shard 1 of the replay buffer is back, with 0 rows" in caplog.text
    for k in range(8, 11):
        buffer.add(rows(10 * k, 10 * k + 10))
    assert len(buffer) == 34 + 33 + 10 and len(numbers(buffer.get_state()["shards"][1])) == 10
