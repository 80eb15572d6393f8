"""The sum tree against running sums of all its numbers."""

import numpy as np
import pytest
import torch

from rllib_maddpg.replay import sum_tree
from rllib_maddpg.replay.sum_tree import SumTree

CPU = torch.device("cpu")


def tree_of(numbers):
    tree = SumTree(len(numbers), CPU)
    tree.set(torch.arange(len(numbers)), torch.from_numpy(numbers))
    return tree


def found_by_hand(numbers, fractions):
    """The place whose number takes the running sum past fraction * total, in whole numbers as Python has them."""
    ends = np.cumsum(numbers)
    return [int(np.searchsorted(ends, min(int(f * float(ends[-1])), ends[-1] - 1), side="right")) for f in fractions]


@pytest.mark.parametrize("places", [1, 2, 63, 64, 65, 5000, 16_384, 16_385, 100_000])
@pytest.mark.parametrize("top", [2**14, 4])
def test_draws_are_those_of_running_sums(places, top, monkeypatch):
    """Also with many levels, and with zeros; to the bit."""
    monkeypatch.setattr(sum_tree, "MOST_AT_TOP", top)
    rng = np.random.default_rng(places)
    numbers = rng.integers(0, 1000, places) * (rng.random(places) < 0.3)
    numbers[rng.integers(places)] = 5
    tree, fractions = tree_of(numbers), np.concatenate([rng.random(500), [0.0, 1.0 - 2.0**-53]])
    assert int(tree.total) == numbers.sum()
    found = tree.draw(torch.from_numpy(fractions)).numpy()
    np.testing.assert_array_equal(found, found_by_hand(numbers, fractions))
    assert (numbers[found] > 0).all()


def test_sums_follow_the_numbers_and_a_tree_built_anew_is_the_same():
    rng = np.random.default_rng(1)
    numbers = np.zeros(100_000, np.int64)
    tree = SumTree(len(numbers), CPU)
    for _ in range(50):
        places = rng.integers(0, len(numbers), 300)
        numbers[places] = rng.integers(0, tree.most, 300)
        tree.set(torch.from_numpy(places), torch.from_numpy(numbers[places]))
        assert int(tree.total) == sum(numbers.tolist())
    for one, other in zip(tree._levels, tree_of(numbers)._levels, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(tree[torch.arange(len(numbers))], torch.from_numpy(numbers))
    tree.clear()
    assert int(tree.total) == 0


def test_the_largest_numbers_do_not_overflow():
    tree = tree_of(np.full(1_000_000, SumTree(1_000_000, CPU).most))
    assert 2**61 < int(tree.total) <= 2**62
    places = [0, 250_000, 500_000, 999_999]
    fractions = (torch.tensor(places, dtype=torch.float64) + 0.5) / 1_000_000
    assert tree.draw(fractions).tolist() == places
    assert tree.draw(torch.tensor([1.0 - 2.0**-53], dtype=torch.float64)).tolist() == [999_999]
