"""Which rows an update gets: a function of seed, number of the update and place in it; what a state goes on with."""

import copy

import numpy as np
import pytest
from sample_rows import SCHEMA, rows

from rllib_maddpg.replay import JointReplayBuffer
from rllib_maddpg.replay.resharding import dealt, merged
from rllib_maddpg.replay.update_stream import KEY, NUMBER
from rllib_maddpg.rows.counter_random import below, key_of, random_bits


def make(held=50, seed=7, capacity=50, cls=JointReplayBuffer):
    ring = cls(SCHEMA, capacity, seed)
    ring.add(rows(0, held))
    return ring


def numbers(batch):
    return np.floor(batch.columns["obs"][:, 0].numpy() + 1e-3).astype(int).tolist()


def drawn(ring, *args):
    """Row numbers of each Learner's batch."""
    return [numbers(batch) for batch in ring.draw(*args)]


def of_earlier(ring):
    """Its state as earlier versions wrote it."""
    state = ring.get_state()
    return {key: value for key, value in state.items() if key not in (KEY, NUMBER)}


# ------------------------------------------------------------------------------------------ which rows


def test_rows_by_hand():
    ring = make(held=37)
    key = key_of(7, "rows")
    for number, count in [(0, 5), (1, 1), (2, 300)]:
        expected = below(random_bits(key, number, np.arange(count)), 37)
        assert drawn(ring, 1, 1, count) == [expected.tolist()]
        np.testing.assert_array_equal(ring.places_of(number, 1, count), [expected])
    assert ring.rng.bit_generator.state == np.random.default_rng(7).bit_generator.state


def test_updates_of_one_call_are_those_of_several():
    one, two = make(), make()
    (together,) = drawn(one, 1, 4, 6)
    parts = [*drawn(two, 1, 1, 6), numbers(two.sample(6)), *drawn(two, 1, 2, 6)]
    assert together == np.concatenate(parts).tolist()
    assert drawn(one, 1, 1, 3) == drawn(two, 1, 1, 3)


@pytest.mark.parametrize("learners", [2, 4])
def test_several_learners_get_what_one_would(learners):
    (whole,) = drawn(make(), 1, 3, 8)
    own = drawn(make(), learners, 3, 8 // learners)
    assert np.array_equal(np.concatenate(np.reshape(own, (learners, 3, -1)), axis=1).ravel(), whole)


def test_updates_of_other_sizes_begin_alike():
    one, two = make(), make()
    assert drawn(one, 1, 1, 20)[0][:8] == drawn(two, 1, 1, 8)[0]
    assert one.stream.number == two.stream.number == 1


def test_a_ring_that_has_turned():
    """Places are drawn among all of them; the rows are those that lie there now."""
    ring = make(held=63, capacity=50)
    places = ring.places_of(0, 2, 400)
    assert set(places.ravel().tolist()) == set(range(50))
    assert drawn(ring, 1, 2, 400) == [[50 + p if p < 13 else p for p in places.ravel().tolist()]]


def test_an_empty_ring_counts_no_update():
    ring = JointReplayBuffer(SCHEMA, 10, seed=7)
    for call in (lambda: ring.draw(1, 2, 3), lambda: ring.sample(3), lambda: ring.places_of(0, 1, 1)):
        with pytest.raises(ValueError, match="The replay buffer is empty"):
            call()
    assert ring.stream.number == 0


# ------------------------------------------------------------------------------------------ states


def test_to_resume_takes_the_number_only():
    straight, resumed = make(), make()
    for updates in (3, 1, 5):
        straight.draw(2, updates, 4)
    straight.sample(9)
    resumed.stream.number = 10
    assert straight.stream.number == 10 and drawn(straight, 1, 2, 30) == drawn(resumed, 1, 2, 30)
    other = make(seed=1)
    other.set_state(straight.get_state())
    assert drawn(straight, 1, 2, 30) == drawn(other, 1, 2, 30) and other.stream.key == key_of(7, "rows")


def test_the_state_of_an_earlier_version_keeps_its_generator():
    earlier = make()
    earlier.rng = np.random.default_rng(99)
    ring, expected = make(), np.random.default_rng(99)
    ring.set_state(of_earlier(earlier))
    assert drawn(ring, 1, 2, 9) == [expected.integers(0, 50, 18).tolist()]
    assert numbers(ring.sample(7)) == expected.integers(0, 50, 7).tolist()
    # Also after it was saved and restored once more, here and elsewhere.
    state = ring.get_state()
    assert KEY not in state and NUMBER not in state
    other = make(seed=1, capacity=64)
    other.set_state(state)
    following = expected.integers(0, 50, (3, 2, 4))
    assert drawn(other, 2, 3, 4) == [following[:, k].ravel().tolist() for k in range(2)]
    # Until another state is restored.
    ring.set_state(make().get_state())
    assert drawn(ring, 1, 2, 9) == drawn(make(), 1, 2, 9)


def test_rows_of_several_shards_go_on_with_the_number():
    """Nobody draws as they did: the ring keeps its own key, and draws no update's numbers twice."""
    whole = make()
    whole.draw(1, 5, 3)
    shards = [make(held=20, seed=k).get_state() for k in (20, 21)]
    for state, number in ((whole.get_state() | {"shards": shards}, 5), (of_earlier(whole) | {"shards": shards}, 0)):
        ring = make(seed=3)
        ring.set_state(of_earlier(whole))
        assert ring.stream.key is None
        ring.set_state(state)
        assert ring.stream.key == key_of(3, "rows") and ring.stream.number == number and len(ring) == 40
        np.testing.assert_array_equal(ring.places_of(number, 1, 30).ravel(), ring._choose(1, 30))
        assert KEY not in merged(state) and all(KEY not in own for own in dealt(state, 3))


@pytest.mark.parametrize(
    ("name", "value"),
    [(KEY, value) for value in (None, 1.0, "1", 2**63, True)] + [(NUMBER, value) for value in (-1, None, 2.5, 2**53)],
)
def test_damaged_states_change_nothing(name, value):
    ring = make()
    ring.draw(1, 3, 4)
    other = make(seed=1)
    before = copy.deepcopy(other.get_state())
    for damaged in (ring.get_state() | {name: value}, ring.get_state() | {"shards": [ring.get_state() | {name: value}]}):
        for call in (other.check_state, other.set_state):
            with pytest.raises(ValueError, match=rf"The replay buffer of the checkpoint has {name}={value!r}\."):
                call(damaged)
    lacks = {key: value for key, value in ring.get_state().items() if key != NUMBER}
    with pytest.raises(ValueError, match=f"has {KEY}, but no {NUMBER}"):
        other.set_state(lacks)
    after = other.get_state()
    assert after.keys() == before.keys() and all(np.array_equal(after[k], before[k]) for k in before if k != "columns")


# ------------------------------------------------------------------------------------------ users' classes


class Mixed(JointReplayBuffer):
    """Draws by the ring and by NumPy's generator; remembers how many rows it was asked for."""

    def __init__(self, *args):
        super().__init__(*args)
        self.asked = []

    def choose(self, num_rows):
        self.asked.append(num_rows)
        places = super().choose(num_rows)
        places[::2] = self.rng.integers(0, len(self), len(places[::2]))
        return places


def test_a_class_chooses_for_all_updates_in_one_call():
    ring, generator = make(cls=Mixed), np.random.default_rng(7)
    for number, call in enumerate([(2, 3, 4), (1, 1, 5)]):
        total = np.prod(call)
        expected = below(random_bits(key_of(7, "rows"), number, np.arange(total)), 50)
        expected[::2] = generator.integers(0, 50, len(expected[::2]))
        parts = expected.reshape(call[1], call[0], call[2])
        assert drawn(ring, *call) == [parts[:, k].ravel().tolist() for k in range(call[0])]
    assert ring.asked == [24, 5]
    # Both are in the state.
    other = make(seed=1, cls=Mixed)
    other.set_state(ring.get_state())
    assert drawn(other, 2, 3, 4) == drawn(ring, 2, 3, 4)
