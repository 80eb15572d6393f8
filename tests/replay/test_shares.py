"""How many rows of an update come from which shard."""

import numpy as np

from rllib_maddpg.replay.shares import ShardShares

SIZES = [300, 0, 2700, 1000]


def test_all_learners_together_get_what_one_would():
    shares = ShardShares()
    (whole,) = shares.draw(5, 0, 50, SIZES, 1, 24)
    for learners in (2, 3, 4):
        own = shares.draw(5, 0, 50, SIZES, learners, 24 // learners)
        assert own.shape == (learners, 50, 4) and (own.sum(2) == 24 // learners).all() and own.min() >= 0
        np.testing.assert_array_equal(own.sum(0), whole)


def test_an_update_is_a_function_of_key_number_and_sizes():
    shares = ShardShares()
    several = shares.draw(-5, 3, 4, SIZES, 2, 100)
    assert not np.array_equal(several, shares.draw(-6, 3, 4, SIZES, 2, 100))
    assert len(np.unique(several[0], axis=0)) == 4
    for k in range(4):
        for again in (shares, ShardShares()):
            np.testing.assert_array_equal(several[:, [k]], again.draw(-5, 3 + k, 1, SIZES, 2, 100))


def test_counts_vary_as_if_rows_were_drawn_one_by_one():
    """Those of each of two Learners, over 4,000 updates; of the mean 4 standard errors, of the variance 4 of its own."""
    updates, rows = 4000, 50
    counts = ShardShares().draw(1, 0, updates, SIZES, 2, rows)
    p = np.array(SIZES) / sum(SIZES)
    variance = rows * p * (1 - p)
    for own in counts:
        assert (np.abs(own.mean(0) - rows * p) <= 4 * np.sqrt(variance / updates)).all()
        np.testing.assert_allclose(own.var(0), variance, rtol=4 * np.sqrt(2 / updates) * 1.2)
    # Learners draw independently of each other.
    for k in (0, 2, 3):
        assert abs(np.corrcoef(counts[0, :, k], counts[1, :, k])[0, 1]) < 3 / np.sqrt(updates)
