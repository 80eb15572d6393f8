"""What every replay buffer does alike: ring, shards, one on top of the ring and one from the base class alone."""

import numpy as np
import pytest
import ray
import torch
from sample_rows import SCHEMA, arrays, check_rows, rows
from users_replays import PlainReplay, PrioritizedReplay

from rllib_maddpg.replay import JointReplayBuffer
from rllib_maddpg.replay.choice import DEFAULTS, make_replay, replay_class, takes_state_of
from rllib_maddpg.replay.remote import RemoteRollout
from rllib_maddpg.replay.sharded import ShardedReplayBuffer

CAPACITY = 40
TYPES = {
    "ring": {},
    "shards": {"num_shards": 2},
    "prioritized": {"type": "users_replays.PrioritizedReplay", "alpha": 0.5},
    "plain": {"type": PlainReplay},
}


def make(name, seed=1):
    return make_replay(SCHEMA, seed, {"capacity": CAPACITY, **TYPES[name]})


@pytest.fixture(scope="module")
def kept(request, ray_session):
    """One buffer of each type, and its state when it was empty: shards take long to start."""
    name = request.param
    buffer = make(name)
    yield buffer, buffer.get_state()
    buffer.stop()


@pytest.fixture
def shards(ray_session):
    """Two buffers in two shards each."""
    buffers = [make("shards", seed) for seed in (1, 5)]
    yield buffers
    for buffer in buffers:
        buffer.stop()


@pytest.fixture
def buffer(kept):
    """An empty buffer of each type."""
    kept[0].set_state(kept[1])
    return kept[0]


every_type = pytest.mark.parametrize("kept", list(TYPES), indirect=True, scope="module")


def numbers(batch):
    """Row numbers of a batch; its rows are whole."""
    columns = arrays(batch)
    found = np.floor(columns["obs"][:, 0] + 1e-3).astype(int)
    check_rows(columns, found)
    return found.tolist()


# ------------------------------------------------------------------------------------------ every type


@every_type
def test_rows_are_stored_but_for_those_that_are_not_finite(buffer):
    assert len(buffer) == 0 and buffer.capacity == CAPACITY
    bad = rows(4, 6)
    bad.columns["rewards"][1, 0] = np.nan
    stored = buffer.store([rows(0, 4), bad, rows(6, 13), rows(0, 0)])
    assert [s.rows for s in stored] == [4, 0, 7, 0] and not any(s.lost for s in stored)
    assert "reward of agent 'a' is nan at step 1" in stored[1].error and not (stored[0].error or stored[2].error)
    assert len(buffer) == 11
    buffer.store([rows(100, 130), rows(130, 160)])
    assert len(buffer) <= CAPACITY


@every_type
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("learners", [1, 2])
def test_each_learner_gets_its_batch(buffer, learners, shuffled):
    buffer.store([rows(0, 9), rows(9, 20)])
    batches = buffer.draw(learners, updates=3, rows=5, shuffled=shuffled)
    assert [len(batch) for batch in batches] == [15] * learners
    drawn = [numbers(batch.to(torch.device("cpu"), SCHEMA)) for batch in batches]
    assert all(0 <= row < 20 for own in drawn for row in own) and len({row for own in drawn for row in own}) > 5
    assert learners == 1 or drawn[0] != drawn[1]


@every_type
def test_nothing_can_be_drawn_from_nothing(buffer):
    with pytest.raises(ValueError, match=r"The replay buffer is empty|a must be a positive integer"):
        buffer.draw(1, 1, 3)


@every_type
def test_the_newest_rows_oldest_first(buffer):
    assert numbers(buffer.latest(5)) == numbers(buffer.latest(0)) == []
    buffer.store([rows(0, 4)])
    assert numbers(buffer.latest(0)) == numbers(buffer.latest(-3)) == []
    assert numbers(buffer.latest(3)) == [1, 2, 3]
    assert numbers(buffer.latest(4)) == numbers(buffer.latest(99)) == [0, 1, 2, 3]
    buffer.store([rows(4, 8)])
    assert sorted(numbers(buffer.latest(8))) == list(range(8))
    batch = buffer.latest(2)
    assert batch.schema is SCHEMA and batch.joint_rows.dtype == torch.float32 and len(batch.modules["m"]["obs"]) == 2
    for k in range(2, 40):  # beyond the capacity, so that rings have turned
        buffer.store([rows(4 * k, 4 * k + 4)])
    assert sorted(numbers(buffer.latest(8))) == list(range(152, 160)) and len(buffer) == CAPACITY
    assert sorted(numbers(buffer.latest(1000))) == list(range(120, 160))


@every_type
def test_a_state_goes_on_as_it_would_have(buffer, kept):
    buffer.store([rows(0, 7), rows(7, 20)])
    buffer.draw(1, 1, 3)
    state = buffer.get_state()
    buffer.check_state(state)

    def go_on():
        buffer.store([rows(20, 23)])
        drawn = [numbers(batch.to(torch.device("cpu"), SCHEMA)) for batch in buffer.draw(2, 2, 10, shuffled=True)]
        return len(buffer), drawn, numbers(buffer.latest(6))

    first = go_on()
    assert go_on()[1] != first[1]
    buffer.set_state(state)
    assert go_on() == first and first[0] == 23


# ------------------------------------------------------------------------------------------ ring


def test_a_ring_deals_out_what_it_would_draw_for_one():
    """2 Learners, 3 updates of 4 rows: of each update's 8 rows in turn the first gets 4, and the second 4."""
    one, two = (JointReplayBuffer(SCHEMA, 50, seed=7) for _ in range(2))
    for ring in (one, two):
        ring.add(rows(0, 50))
    whole = numbers(one.draw(1, 3, 8)[0])
    first, second = map(numbers, two.draw(2, 3, 4))
    assert first == whole[0:4] + whole[8:12] + whole[16:20] and second == whole[4:8] + whole[12:16] + whole[20:24]


def test_the_newest_rows_of_a_ring_at_each_of_its_places():
    ring = JointReplayBuffer(SCHEMA, 7)
    for last in range(1, 30):
        ring.add(rows(last - 1, last))
        for count in range(9):
            assert numbers(ring.latest(count)) == list(range(max(0, last - min(count, 7)), last))
        assert ring.next_place == last % 7
    ring.add(rows(29, 60))  # longer than the ring
    assert numbers(ring.latest(7)) == list(range(53, 60))


def test_priorities_by_hand():
    """TD errors 3, 0, 1 and a new row, which is drawn as often as the best: shares of 3/7, 0, 1/7, 3/7."""
    ring = PrioritizedReplay(SCHEMA, 4, seed=0, alpha=1.0)
    ring.add(rows(0, 3))
    ring.drawn = [np.array([0, 1]), np.array([2, 1])]
    ring.feedback([np.float32([3, 9]), np.float32([1, 0])])
    ring.add(rows(3, 4))
    count = np.bincount(numbers(ring.draw(1, 1, 70_000)[0]), minlength=4)
    np.testing.assert_allclose(count, [30_000, 10, 10_000, 30_000], atol=660)  # 5 standard deviations
    assert count[1] < 40


# ------------------------------------------------------------------------------------------ shards


def test_the_newest_rows_of_shards(shards):
    """By hand: rows that are equally far from their shard's newest one are equally old."""
    one, two = shards
    one.store([RemoteRollout(rows(4 * k, 4 * k + 4)) for k in range(4)])  # 0-3 and 8-11; 4-7 and 12-15
    assert numbers(one.latest(4)) == [10, 14, 11, 15]
    assert numbers(one.latest(5)) == [13, 10, 14, 11, 15]
    assert numbers(one.latest(1)) == [15]
    one.store([rows(16, 17)])  # now the first shard has had the last one
    assert numbers(one.latest(3)) == [11, 15, 16]
    two.set_state(one.get_state())
    assert numbers(two.latest(10)) == numbers(one.latest(10))
    ray.kill(one._shards[0], no_restart=True)
    assert numbers(one.latest(4)) == [14, 15]  # 11 and 16 are gone
    assert numbers(one.latest(4)) == [12, 13, 14, 15]
    # At the end, and no less often than it is asked for.
    for _ in range(2):
        two.stop()
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get([two._shards[1].size.remote() for _ in range(200)])


# ------------------------------------------------------------------------------------------ which class


def test_the_class_that_is_asked_for():
    assert replay_class({}) is replay_class(DEFAULTS) is JointReplayBuffer
    for kind in ("JointReplayBuffer", JointReplayBuffer, "rllib_maddpg.replay.JointReplayBuffer"):
        assert replay_class({"type": kind}) is JointReplayBuffer
        assert replay_class({"type": kind, "num_shards": 3}) is ShardedReplayBuffer
    assert replay_class({"type": "ShardedReplayBuffer"}) is ShardedReplayBuffer
    assert replay_class({"type": "users_replays.PrioritizedReplay"}) is PrioritizedReplay
    # Their states: ring and shards take each other's, others only what they say.
    for cls in (JointReplayBuffer, ShardedReplayBuffer):
        assert takes_state_of(cls, "JointReplayBuffer") and takes_state_of(cls, "ShardedReplayBuffer")
        assert not takes_state_of(cls, "PrioritizedReplay")
    assert takes_state_of(PrioritizedReplay, "PrioritizedReplay") and not takes_state_of(PrioritizedReplay, "JointReplayBuffer")
    tolerant = type("Tolerant", (PrioritizedReplay,), {"restores": ("JointReplayBuffer",)})
    assert takes_state_of(tolerant, "JointReplayBuffer") and not takes_state_of(tolerant, "PrioritizedReplay")
    one = type("One", (PrioritizedReplay,), {"restores": "JointReplayBuffer"})
    assert takes_state_of(one, "JointReplayBuffer") and not takes_state_of(one, "JointReplay")


def test_a_class_gets_the_other_keys():
    ring = make_replay(SCHEMA, 3, {"capacity": 6, "type": PrioritizedReplay, "alpha": 0.25, "device": "cpu", "num_shards": 0})
    assert (ring.alpha, ring.capacity, ring.schema) == (0.25, 6, SCHEMA)
    assert ring.get_state()["rng"] == np.random.default_rng(3).bit_generator.state
    assert ring.get_ctor_args_and_kwargs()[1]["capacity"] == 6
    plain = make_replay(SCHEMA, None, {"capacity": 9, "type": PlainReplay})
    assert plain.capacity == 9 and PlainReplay(*plain.get_ctor_args_and_kwargs()[0], seed=1).capacity == 9
