"""Prioritized replay against numbers worked out by hand and against the distribution that it promises."""

import numpy as np
import pytest
from histories import LAYOUT, History, check_drawn, schema_of
from scipy import stats

from rllib_maddpg.replay import JointReplayBuffer, PrioritizedJointReplayBuffer
from rllib_maddpg.replay.resharding import dealt, merged
from rllib_maddpg.rows.rollout import JointRollout

SCHEMA = schema_of(1, weighs=True)


def ring_of(rows, capacity=None, **settings):
    """A buffer whose rows have their number as the first reward."""
    ring = PrioritizedJointReplayBuffer(SCHEMA, capacity or rows, **{"seed": 3, **settings})
    add(ring, 0, rows)
    return ring


def add(ring, first, last):
    rollout = JointRollout.empty(SCHEMA.stored, last - first)
    rollout.columns["rewards"][:] = np.arange(first, last)[:, None]
    ring.add(rollout)


def tell(ring, errors):
    ring.set_errors(np.arange(len(errors)), np.float32(errors))


def numbers(batch):
    return batch.columns["rewards"][:, 0].numpy().astype(int)


def weights(batch):
    return batch.columns["weights"][:, 0].numpy()


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_rows_are_drawn_in_proportion_to_their_priorities(alpha):
    """Chi-square of 200,000 draws, at 1 in 1,000 by chance; the seed is fixed."""
    errors = np.array([0.0, 0.001, 0.1, 0.5, 1.0, 1.0, 3.0, 20.0])
    ring = ring_of(8, alpha=alpha)
    tell(ring, errors)
    drawn = np.bincount(numbers(ring.draw(1, 200, 1000)[0]), minlength=8)
    chances = (errors + 1e-6) ** alpha / ((errors + 1e-6) ** alpha).sum()
    expected = 200_000 * chances
    many = expected > 5  # else the approximation does not hold
    assert stats.chisquare(drawn[many], expected[many] * drawn[many].sum() / expected[many].sum()).pvalue > 1e-3
    assert many.sum() >= 7 or alpha == 1.0
    assert drawn[~many].sum() <= 20


def test_weights_by_hand():
    """(N P)^-beta: to 1e-5, since p^alpha is a multiple of 2^-22 and weights are float32."""
    errors, alpha, beta = np.array([0.1, 0.5, 2.0, 7.0]), 0.7, 0.4
    ring = ring_of(4, alpha=alpha, beta=beta)
    tell(ring, errors)
    batch = ring.draw(1, 1, 500)[0]
    p = (errors + 1e-6) ** alpha
    np.testing.assert_allclose(weights(batch), ((4 * p / p.sum()) ** -beta)[numbers(batch)], rtol=1e-5)
    assert set(numbers(batch)) == {0, 1, 2, 3}
    for settings in ({"alpha": 0.0}, {"beta": 0.0}):
        ring = ring_of(4, **settings)
        tell(ring, errors)
        np.testing.assert_allclose(weights(ring.draw(1, 1, 50)[0]), 1.0, rtol=1e-6)
    assert (weights(ring.latest(4)) == 1.0).all()


def test_new_rows_have_the_largest_priority_so_far():
    ring = ring_of(3, capacity=5)
    assert ring.get_state()["beside"]["priorities"].tolist() == [1.0, 1.0, 1.0]
    tell(ring, [0.5, 4.0, 0.25])
    add(ring, 3, 6)  # overwrites the first row
    tell_of_new = ring.get_state()["beside"]["priorities"]
    np.testing.assert_allclose(tell_of_new, [4, 4, 0.25, 4, 4], rtol=1e-5)
    tell(ring, [0.1, 0.1])
    add(ring, 6, 7)
    np.testing.assert_allclose(ring.get_state()["beside"]["priorities"], [0.1, 4, 0.25, 4, 4], rtol=1e-4)


def test_feedback_of_several_learners_finds_its_rows():
    """Of a row that was drawn several times the last update's error holds, and no error that is not finite does."""
    ring = ring_of(6)
    batches = ring.draw(2, 3, 4)
    drawn = np.stack([numbers(b).reshape(3, 4) for b in batches], 1)
    errors = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    errors[2, 1, 3] = np.nan
    before = ring.get_state()["beside"]["priorities"]
    ring.feedback([errors[:, k].ravel() for k in range(2)])
    expected = before.copy()
    for number, error in zip(drawn.ravel(), errors.ravel(), strict=True):
        if np.isfinite(error):
            expected[number] = error + np.float32(1e-6)
    np.testing.assert_array_equal(ring.get_state()["beside"]["priorities"], expected)
    assert ring.largest == expected.max() == np.float32(22 + 1e-6)


def test_a_row_drawn_for_one_module_keeps_its_priority_where_that_one_learns_nothing():
    """With `minibatch_per_module`: 0 says that none of its agents lives, or that it is frozen; others may still learn."""
    ring = ring_of(6)
    tell(ring, [2.0] * 6)
    before = ring.get_state()["beside"]["priorities"]
    drawn = numbers(ring.draw(1, 1, 3, shuffled=True)[0])
    ring.feedback([np.float32([0.0, 0.0, 5.0])])
    expected = before.copy()
    expected[drawn[2]] = 5.0 + 1e-6
    np.testing.assert_array_equal(ring.get_state()["beside"]["priorities"], expected)
    drawn = numbers(ring.draw(1, 1, 3)[0])  # of all modules: nobody learned from these rows
    ring.feedback([np.zeros(3, np.float32)])
    expected[drawn] = np.float32(1e-6)
    np.testing.assert_array_equal(ring.get_state()["beside"]["priorities"], expected)


def test_draws_depend_on_seed_number_and_priorities_only():
    """Not on how rows came to their priorities, on Learners, nor on how many updates are drawn in a call."""
    errors = np.random.default_rng(0).random(300).astype(np.float32)
    one, other = ring_of(300), ring_of(300)
    tell(one, errors)
    for places in (np.arange(200, 300), np.arange(200)):
        other.set_errors(places, 5 * errors[places])
        other.set_errors(places, errors[places])
    four = numbers(one.draw(1, 4, 32)[0])
    assert four.tolist() == one.places_of(0, 4, 32).ravel().tolist()
    parts = [numbers(other.draw(1, updates, 32)[0]) for updates in (1, 3)]
    assert four.tolist() == np.concatenate(parts).tolist()
    two = ring_of(300)
    tell(two, errors)
    by_learner = [numbers(batch).reshape(4, 16) for batch in two.draw(2, 4, 16)]
    assert np.concatenate(by_learner, 1).ravel().tolist() == four.tolist()
    other = ring_of(300, seed=4)
    tell(other, errors)
    assert numbers(other.draw(1, 4, 32)[0]).tolist() != four.tolist()
    with pytest.raises(ValueError, match="is empty"):
        PrioritizedJointReplayBuffer(SCHEMA, 10).draw(1, 1, 1)


def test_a_row_without_any_error_is_still_drawn_and_the_largest_errors_are_clipped():
    ring = ring_of(2, alpha=1.0)
    tell(ring, [0.0, 1e-6])
    drawn = np.bincount(numbers(ring.draw(1, 1, 3000)[0]), minlength=2)
    assert 800 < drawn[0] < 1200  # 4 of 12 units of 2^-22
    tell(ring, [3e38, 3e38])
    assert weights(ring.draw(1, 1, 5)[0]).tolist() == [1.0] * 5


# States.


def same_draws(one, other, updates=3):
    for _ in range(updates):
        mine, theirs = one.draw(1, 2, 16)[0], other.draw(1, 2, 16)[0]
        assert mine.joint_rows.numpy().tobytes() == theirs.joint_rows.numpy().tobytes()
        errors = np.random.default_rng(one.stream.number).random(32).astype(np.float32)
        for ring in (one, other):
            ring.feedback([errors])
    for mine, theirs in zip(one._tree._levels, other._tree._levels, strict=True):
        assert (mine == theirs).all()


@pytest.mark.parametrize("rows", [50, 130])
def test_a_restored_buffer_goes_on_bit_for_bit(rows):
    ring = ring_of(rows, capacity=100, priority="max")
    ring.feedback([np.random.default_rng(1).random(40).astype(np.float32) for _ in ring.draw(1, 1, 40)])
    other = PrioritizedJointReplayBuffer(SCHEMA, 100, seed=77)
    ring.check_state(ring.get_state())
    other.set_state(ring.get_state())
    same_draws(ring, other)


@pytest.mark.parametrize("capacity", [30, 200])
def test_another_capacity(capacity):
    """Rows keep their priorities wherever they lie."""
    ring = ring_of(90, capacity=60)
    drawn = numbers(ring.draw(1, 1, 400)[0])
    errors = np.float32(drawn * 0.1)
    ring.feedback([errors])
    other = PrioritizedJointReplayBuffer(SCHEMA, capacity)
    other.set_state(ring.get_state())
    state = other.get_state()
    held = state["columns"]["rewards"][:, 0].astype(int)
    assert sorted(held) == list(range(90 - min(60, capacity), 90)) and set(held) <= set(drawn)
    np.testing.assert_array_equal(state["beside"]["priorities"], np.float32(held * 0.1) + np.float32(1e-6))


def test_states_of_uniform_buffers_and_back():
    ring, plain = ring_of(20), JointReplayBuffer(schema_of(1), 20, seed=1)
    tell(ring, np.arange(20))
    plain.set_state(ring.get_state())
    assert (plain.rows_at(np.arange(20)).columns["rewards"][:, 0].numpy() == np.arange(20)).all()
    ring.set_state(plain.get_state())
    assert ring.get_state()["beside"]["priorities"].tolist() == [1.0] * 20
    # One of a version that drew by NumPy's generator: this one goes on with its own key.
    old = {key: value for key, value in plain.get_state().items() if key not in ("stream_key", "num_updates_drawn")}
    ring.set_state(old)
    assert ring.stream.key is not None and len(ring.draw(1, 1, 5)[0]) == 5


def test_another_alpha():
    ring = ring_of(4, alpha=0.0)
    tell(ring, [1, 2, 3, 4])
    other = PrioritizedJointReplayBuffer(SCHEMA, 4, alpha=1.0, beta=1.0)
    other.set_state(ring.get_state())
    batch = other.draw(1, 1, 100)[0]
    np.testing.assert_allclose(weights(batch), 10 / 4 / (numbers(batch) + 1), rtol=1e-5)


def test_states_of_shards():
    rings = [ring_of(30, capacity=20, seed=1), ring_of(10, capacity=20, seed=2)]
    add(rings[1], 30, 45)
    for ring, scale in zip(rings, (1, 2), strict=True):
        ring.set_errors(np.arange(20), np.float32(scale * ring.rows_at(np.arange(20)).columns["rewards"][:, 0].numpy()))
    top = {k: v for k, v in rings[0].get_state().items() if k in ("layout", "schema", "num_rows_added", "rng")}
    state = {**top, "shards": [ring.get_state() for ring in rings], "capacity": 40}
    whole = PrioritizedJointReplayBuffer(SCHEMA, 40)
    whole.set_state(state)
    expected = sorted(x for ring in rings for x in ring.get_state()["beside"]["priorities"].tolist())
    assert sorted(whole.get_state()["beside"]["priorities"].tolist()) == expected and len(expected) == 40
    assert whole.largest == max(ring.largest for ring in rings)
    parts = [part["beside"]["priorities"].tolist() for part in dealt(merged(state), 3)]
    assert sorted(x for part in parts for x in part) == expected


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"beside": {"priorities": np.ones(19, np.float32)}}, "has priorities that are none of 20 rows"),
        ({"beside": {"priorities": np.zeros(20, np.float32)}}, "has priorities that are none of 20 rows"),
        ({"beside": {"priorities": np.full(20, np.nan, np.float32)}}, "has priorities that are none of 20 rows"),
        ({"largest": -1.0}, "has largest=-1.0"),
        ({"largest": None}, "is damaged"),
    ],
)
def test_damaged_states_are_refused(changed, text):
    ring = ring_of(20)
    before = ring.get_state()
    with pytest.raises(ValueError, match=text):
        ring.set_state({**before, **changed})
    assert ring.get_state()["beside"]["priorities"].tolist() == [1.0] * 20


def test_with_n_steps():
    """Both together: rows with what came after them, and weights."""
    history = History(seed=5)
    ring = PrioritizedJointReplayBuffer(schema_of(3, weighs=True), 50, seed=1)
    for rollout in history.rollouts(40):
        ring.add(rollout)
    ring.set_errors(np.arange(50), np.random.default_rng(0).random(50).astype(np.float32))
    places = ring.places_of(0, 2, 40).ravel()
    batch = ring.draw(1, 2, 40)[0]
    check_drawn(history, batch, len(history.rows) - 1 - (ring.next_place - 1 - places) % 50, 3)
    assert batch.columns["weights"].std() > 0.1 and LAYOUT is ring.schema.layout
    other = PrioritizedJointReplayBuffer(schema_of(3, weighs=True), 50)
    other.set_state(ring.get_state())
    same_draws(ring, other)
