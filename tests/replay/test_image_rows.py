"""Rows of images in the ring, which keeps each image once: what is drawn is what was added, to the bit, and nothing is lost."""

import numpy as np
import pytest
import torch
from histories import check_drawn
from image_histories import LAYOUT, SIZE, ImageHistory, image_schema

from rllib_maddpg.replay import JointReplayBuffer, PrioritizedJointReplayBuffer
from rllib_maddpg.replay.resharding import dealt, merged
from rllib_maddpg.replay.row_pool import RowPool
from rllib_maddpg.replay.state_check import check_buffer_state
from rllib_maddpg.replay.upload import RingUpload
from rllib_maddpg.rows.rollout import JointRollout


def numbers_held(ring, history):
    """The number of the row at each place."""
    return len(history.rows) - 1 - (ring.next_place - 1 - np.arange(len(ring))) % ring.capacity


def check(ring, history, n=1, since=0):
    """All rows are what they were, and only those images are kept beside the ring that have to be."""
    numbers = numbers_held(ring, history)
    check_drawn(history, ring.rows_at(np.arange(len(ring))), numbers, n)
    assert ring._next_obs.alone == history.alone(numbers, since)


@pytest.mark.parametrize(("n", "capacity"), [(1, 40), (1, 1000), (3, 40), (3, 1000)])
def test_random_histories(n, capacity):
    """Several runners with several envs each, whose rows overwrite each other; looked at again and again."""
    history = ImageHistory(seed=n + capacity)
    ring = JointReplayBuffer(image_schema(n), capacity)
    shares = []
    for k, rollout in enumerate(history.rollouts(60)):
        rollout.rows.flags.writeable = False  # as Ray's are
        ring.add(rollout)
        if k % 6 == 0:
            check(ring, history, n)
            shares.append(ring._next_obs.alone / len(ring))
    assert 0.1 < np.mean(shares) < 0.8 and (len(ring) == 40) == (capacity == 40)
    newest = ring.latest(10)
    check_drawn(history, newest, range(len(history.rows) - 10, len(history.rows)), n)
    drawn, places = ring.draw(1, 2, 8)[0], ring.places_of(0, 2, 8).ravel()
    check_drawn(history, drawn, numbers_held(ring, history)[places], n)


def test_a_ring_of_floats_draws_the_same():
    """The same game, whose agents observe vectors: every column has the same numbers, and the ring keeps both x and x'."""
    from rllib_maddpg.rows.layout import JointLayout
    from rllib_maddpg.rows.schema import RowSchema

    schema = image_schema(3, weighs=True)
    layout = JointLayout(
        {slot.agent: _vector(slot) for slot in LAYOUT.slots},
        {slot.agent: slot.codec.space for slot in LAYOUT.slots},
        {slot.agent: slot.module for slot in LAYOUT.slots}.get,
    )
    other = RowSchema(layout, schema.extra, schema.own)
    assert other.columns["obs"].dtype == "float32" and other.kept == other.stored.places
    images, vectors = (PrioritizedJointReplayBuffer(s, 50, seed=4) for s in (schema, other))
    for rollout in ImageHistory(seed=1).rollouts(20):
        images.add(rollout)
        copied = JointRollout.empty(other.stored, len(rollout))
        copied.worker_index = rollout.worker_index
        for name, values in copied.columns.items():
            values[:] = rollout.columns[name]
        vectors.add(copied)
        draws = [ring.draw(2, 2, 8) for ring in (images, vectors)]
        for one, two in zip(*draws, strict=True):
            assert one.columns.keys() == two.columns.keys()
            for name, values in one.columns.items():
                assert values.dtype == two.columns[name].dtype and torch.equal(values, two.columns[name]), name
        for ring in (images, vectors):
            ring.feedback([np.arange(16, dtype=np.float32), np.arange(16, dtype=np.float32) / 7])


def _vector(slot):
    import gymnasium as gym

    return gym.spaces.Box(0, 255, (slot.obs.stop - slot.obs.start,), np.float32)


def row(**given):
    rollout = JointRollout.empty(image_schema(), 1)
    for name, value in {"alive": 1, "next_alive": 1, **given}.items():
        rollout.columns[name][:] = value
    return rollout


def test_by_hand():
    """How many images lie beside the ring after each fragment of one row."""
    ring = JointReplayBuffer(image_schema(), 5)
    steps = [
        (row(episodes=0, t=0, obs=1, new_obs=2), 1),
        (row(episodes=0, t=1, obs=2, new_obs=3), 1),  # what the first one had beside it is this one's x
        (row(episodes=0, t=2, obs=4, new_obs=5), 2),  # is not what was seen last
        (row(episodes=0, t=4, obs=5, new_obs=6), 3),  # a step is missing
        (row(episodes=1, t=5, obs=6, new_obs=7), 4),  # of another episode
        (row(episodes=1, t=6, obs=7, new_obs=8), 4),  # over the first one, which had none
        (row(episodes=1, t=7, obs=8, new_obs=9), 3),  # over the second
    ]
    for rollout, alone in steps:
        ring.add(rollout)
        assert ring._next_obs.alone == alone
    held = ring.latest(5).columns
    assert held["obs"][:, 0].tolist() == [4, 5, 6, 7, 8] and held["new_obs"][:, -1].tolist() == [5, 6, 7, 8, 9]
    # Nobody knows which episode it is.
    for _ in range(2):
        ring.add(row(obs=9, new_obs=9))
    assert ring._next_obs.alone == 3 and ring.latest(2).columns["new_obs"].unique().tolist() == [9]


def test_runners_have_episodes_of_the_same_number():
    ring = JointReplayBuffer(image_schema(), 9)
    for worker in (0, 1):
        first = row(episodes=0, t=0, obs=1, new_obs=2 + worker)
        first.worker_index = worker
        ring.add(first)
    second = row(episodes=0, t=1, obs=2, new_obs=5)
    second.worker_index = 1
    ring.add(second)  # is not what this runner's agents saw last
    assert ring._next_obs.alone == 3
    second.worker_index = 0
    ring.add(second)
    assert ring._next_obs.alone == 3 and ring.latest(9).columns["new_obs"][:, 0].tolist() == [2, 3, 5, 5]


def test_a_rollout_longer_than_the_ring():
    history = ImageHistory(seed=3, workers=1, envs=1)
    ring = JointReplayBuffer(image_schema(3), 7)
    rollouts = list(history.rollouts(30))
    ring.add(JointRollout.concat(history.schema, rollouts))
    check(ring, history, 3)
    ring.add(JointRollout.empty(history.schema, 0))
    check(ring, history, 3)


def test_the_pool_grows_and_shrinks():
    """Episodes of one step, and then a long one, whose rows overwrite theirs."""
    ring = JointReplayBuffer(image_schema(), 400)
    for k in range(400):
        ring.add(row(episodes=k, t=0, obs=k % 256, new_obs=(k + 1) % 256))
    pool = ring._next_obs._pool
    assert len(pool) == 400 <= len(pool.words) < 700
    for t in range(390):
        ring.add(row(episodes=400, t=t, obs=t % 256, new_obs=(t + 1) % 256))
    assert len(pool) == 11 and len(pool.words) <= 4 * 16
    columns = ring.latest(400).columns
    assert (columns["new_obs"][:, 0] == (columns["obs"][:, 0] + 1) % 256).all()


def test_it_is_told_when_there_are_more_than_was_counted(caplog):
    ring = JointReplayBuffer(image_schema(), 100)
    for k in range(30):
        ring.add(row(episodes=k, t=0, obs=k, new_obs=k))
        assert ("more than 10%" in caplog.text) == (k >= 10)
    assert caplog.text.count("more than 10%") == 1


def test_a_pool():
    """Against a dict, with slots given out and taken back at random."""
    rng = np.random.default_rng(0)
    pool, known = RowPool(3, torch.device("cpu"), RingUpload(torch.zeros(1, 1))), {}
    for size in [5, 80, 3, 0, 200, 1, 1]:
        rows = rng.integers(-(2**31), 2**31, (size, 3), np.int32)
        for slot, own in zip(pool.put(rows).tolist(), rows, strict=True):
            assert slot not in known
            known[slot] = own
        freed = [slot for slot in known if rng.random() < 0.6]
        pool.free(np.array(freed, np.int64))
        for slot in freed:
            del known[slot]
        if pool.is_sparse:
            slots = np.array(sorted(known), np.int64)
            pool.keep(slots)
            known = {k: known[slot] for k, slot in enumerate(slots.tolist())}
            assert not pool.is_sparse
        assert len(pool) == len(known)
        for slot, own in known.items():
            assert (pool.words[slot].numpy() == own).all()


# States.


@pytest.mark.parametrize("before", [30, 1000])
@pytest.mark.parametrize("after", [20, 30, 50, 1000])
def test_a_restored_ring_goes_on(before, after):
    history = ImageHistory(seed=before * after)
    ring = JointReplayBuffer(image_schema(4), before)
    for rollout in history.rollouts(30):
        ring.add(rollout)
    state = ring.get_state()
    assert "new_obs" not in state["columns"] and state["columns"]["obs"].dtype == np.uint8
    assert state["alone"]["new_obs"].shape == (ring._next_obs.alone, SIZE)
    ring.check_state(state)
    other = JointReplayBuffer(image_schema(4), after)
    for rollout in ImageHistory(seed=0).rollouts(5):  # what it had is gone
        other.add(rollout)
    other.set_state(state)
    held, since = min(len(ring), after), len(history.rows)
    check_drawn(history, other.latest(held), range(since - held, since), 4)
    assert other._next_obs.alone == history.alone(range(since - held, since))
    # Env runners begin other episodes.
    history.give_up()
    for rollout in history.rollouts(8):
        other.add(rollout)
    check(other, history, 4, since)


def test_sampling_goes_on_alike():
    history = ImageHistory(seed=2)
    ring = PrioritizedJointReplayBuffer(image_schema(3, weighs=True), 60, seed=1)
    for rollout in history.rollouts(30):
        ring.add(rollout)
        ring.draw(1, 1, 8)
        ring.feedback([np.random.default_rng(len(ring)).random(8, np.float32)])
    other = PrioritizedJointReplayBuffer(image_schema(3, weighs=True), 60, seed=99)
    other.set_state(ring.get_state())
    for rollout in history.rollouts(5):
        ring._next_obs.set_state(*ring._next_obs.get_state(len(ring)))  # it forgets its tails, as the other one had to
        ring._links.set_ahead(ring._links.get_ahead(len(ring)))
        other._next_obs.set_state(*other._next_obs.get_state(len(other)))
        other._links.set_ahead(other._links.get_ahead(len(other)))
        for each in (ring, other):
            each.add(rollout)
        one, two = (each.draw(1, 2, 16)[0].joint_rows.view(torch.int32) for each in (ring, other))
        assert torch.equal(one, two)
    states = [each.get_state() for each in (ring, other)]
    for part in ("beside", "alone", "columns"):
        for name, values in states[0][part].items():
            np.testing.assert_array_equal(values, states[1][part][name], err_msg=name)


def test_damaged_states_are_refused():
    history = ImageHistory(seed=0)
    ring = JointReplayBuffer(image_schema(), 30)
    for rollout in history.rollouts(12):
        ring.add(rollout)
    good = ring.get_state()
    followers, alone = good["beside"]["followers"], good["alone"]["new_obs"]
    check_buffer_state(good, ring.schema)
    newest = followers.copy()
    newest[good["next"] - 1] = 1  # to the oldest one
    for wrong in (followers[:-1], followers - 1, followers + 30, followers.astype(np.int64), newest):
        with pytest.raises(ValueError, match="has followers that lead to none of its 30 rows"):
            ring.check_state({**good, "beside": {"followers": wrong}})
    for wrong in (alone[:-1], alone[:, 1:], alone.astype(np.float32), None):
        with pytest.raises(ValueError, match=rf"next observations of .*, not uint8 numbers of shape \({len(alone)}, {SIZE}\)"):
            ring.check_state({**good, "alone": {"new_obs": wrong}})
    for part in ("beside", "alone"):
        with pytest.raises(ValueError, match=f"The state of the replay buffer is damaged .*{part}"):
            ring.check_state({key: value for key, value in good.items() if key != part})


def rows_by_bits(batch):
    """Bits of whole rows, by what agents have seen in them."""
    return {o.numpy().tobytes(): r.numpy().tobytes() for o, r in zip(batch.columns["obs"], batch.joint_rows, strict=True)}


@pytest.mark.parametrize("shards", [2, 3])
def test_states_of_shards(shards):
    """One ring made of two, and shards of that one: every row is there with its x'; runs of rows stay together."""
    history = ImageHistory(seed=9, deaths=0.0)
    rings = [JointReplayBuffer(image_schema(), capacity, seed=capacity) for capacity in (800, 300)]
    for k, rollout in enumerate(history.rollouts(200)):
        rings[k % 2].add(rollout)
    assert len(rings[1]) == 300 and len(rings[0]) < 800
    own = rings[0].get_state()
    state = {name: own[name] for name in ("rng", "layout", "schema")}
    state |= {"shards": [ring.get_state() for ring in rings], "capacity": 1100, "num_rows_added": len(history.rows)}
    check_buffer_state(state, image_schema())
    bits = {}
    for ring in rings:
        bits |= rows_by_bits(ring.latest(len(ring)))
    whole = JointReplayBuffer(image_schema(), 2000)
    whole.set_state(state)
    assert rows_by_bits(whole.latest(2000)) == bits and len(bits) == len(whole) == sum(map(len, rings))
    assert whole._next_obs.alone == sum(ring._next_obs.alone for ring in rings)
    found, sizes, beside = {}, [], 0
    for part in dealt(merged(state), shards):
        shard = JointReplayBuffer(image_schema(), 900)
        shard.check_state(part)
        shard.set_state(part)
        found |= rows_by_bits(shard.latest(900))
        sizes.append(len(shard))
        beside += shard._next_obs.alone
    assert found == bits and sum(sizes) == len(bits) and max(sizes) - min(sizes) <= 1
    # At each of some ten seams not many more than the rows of a fragment of each of two.
    assert whole._next_obs.alone <= beside <= whole._next_obs.alone + 12 * (len(bits) // 64 + 1)
    # An empty one among them.
    empty = {**state, "shards": [JointReplayBuffer(image_schema(), 10).get_state(), state["shards"][1], None]}
    whole.set_state(empty)
    assert rows_by_bits(whole.latest(2000)) == rows_by_bits(rings[1].latest(300))
