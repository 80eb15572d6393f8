"""Random numbers by counter: known values, the same on NumPy and torch, moments, streams that have nothing in common."""

import math

import numpy as np
import pytest
import torch

from rllib_maddpg.rows.counter_random import below, gumbel, key_of, normal, random_bits, uniform

WORD = 2**64
GAMMA, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
# The first outputs of SplitMix64 with seed 1234567, as published for its reference implementation in C.
KNOWN = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
EXTREMES = np.array([0, -1, 1, 2**63 - 1, -(2**63), 2**41 - 1, -(2**41), 2**18 - 1])
NUMBERS = 200_000


def mixed(z):
    """SplitMix64's output function."""
    z = (z ^ z >> 30) * FIRST % WORD
    z = (z ^ z >> 27) * SECOND % WORD
    return z ^ z >> 31


def unmixed(z):
    """Its inverse."""
    z = (z ^ z >> 31 ^ z >> 62) * pow(SECOND, -1, WORD) % WORD
    z = (z ^ z >> 27 ^ z >> 54) * pow(FIRST, -1, WORD) % WORD
    return z ^ z >> 30 ^ z >> 60


def signed(z):
    return (z + WORD // 2) % WORD - WORD // 2


def bits_of(stream="test", number=0, count=NUMBERS):
    return random_bits(key_of(0, stream), number, np.arange(count))


def test_known_outputs():
    assert mixed(unmixed(1234567)) == 1234567
    bits = random_bits(signed(unmixed(1234567)), np.array([0]), np.arange(5))
    assert bits.dtype == np.int64 and [int(b) % WORD for b in bits] == KNOWN


def test_keys_are_those_of_earlier_runs():
    assert key_of(0, "rows") == key_of(np.random.SeedSequence(0), "rows") == -5929000435059265362
    assert len({key_of(seed, stream) for seed in range(3) for stream in ("rows", "gumbel", "normal")}) == 9
    assert key_of(None, "rows") != key_of(None, "rows")


@pytest.mark.parametrize("key", [0, -1, 2**63 - 1, -(2**63), key_of(7, "rows")])
@pytest.mark.parametrize("number", [0, 1, 12_345_678, 2**62])
def test_numpy_and_torch_give_what_is_written(key, number):
    elements = np.array([0, 1, 2, 1023, 2**40])
    expected = [signed(mixed((mixed((number * GAMMA + key) % WORD) + (e + 1) * GAMMA) % WORD)) for e in elements.tolist()]
    there = torch.from_numpy(elements)
    for number_of in (lambda x: x, lambda x: np.array([x]), lambda x: torch.tensor([x])):
        given = number_of(number)
        if not torch.is_tensor(given):
            assert random_bits(key, given, elements.copy()).tolist() == expected
        if not isinstance(given, np.ndarray):
            assert random_bits(key, given, there).tolist() == expected
    # What is given stays as it is.
    assert elements.tolist() == there.tolist() == [0, 1, 2, 1023, 2**40]


def test_numbers_are_broadcast():
    key, numbers, elements = key_of(1, "rows"), np.arange(5, 9)[:, None], np.arange(100)
    bits = random_bits(key, numbers, elements)
    assert bits.shape == (4, 100)
    for row, number in zip(bits, range(5, 9), strict=True):
        np.testing.assert_array_equal(row, random_bits(key, number, elements))
    np.testing.assert_array_equal(bits, random_bits(key, torch.from_numpy(numbers), torch.from_numpy(elements)).numpy())
    # Any part of an update by itself.
    np.testing.assert_array_equal(bits[2, 40:60], random_bits(key, 7, np.arange(40, 60)))


@pytest.mark.parametrize("size", [1, 2, 3, 1000, 10**6, 2**20, 2**31 + 11, 2**53 - 1, 2**53])
def test_whole_numbers_below(size):
    bits = np.concatenate([EXTREMES, bits_of(count=10_000)])
    found = below(bits, size)
    assert found.dtype == np.int64 and found.min() >= 0 and found.max() < size
    np.testing.assert_array_equal(found, below(torch.from_numpy(bits), size).numpy())
    # The product rounds up to the next whole number at most.
    exact = np.array([(int(b) % WORD >> 11) * size >> 53 for b in bits])
    assert set(found - exact) <= {0, 1} and (size > 2**31 or np.count_nonzero(found - exact) == 0)
    assert below(np.array([0, -1]), size).tolist() == [0, size - 1]


@pytest.mark.parametrize("along", ["elements", "numbers"])
def test_whole_numbers_are_uniform(along):
    """Over the elements of one update, and over the updates for one element."""
    key = key_of(3, "rows")
    bits = bits_of("rows") if along == "elements" else random_bits(key, np.arange(NUMBERS), np.zeros(NUMBERS, np.int64))
    counts = np.bincount(below(bits, 500), minlength=500)
    chi_square = ((counts - NUMBERS / 500) ** 2).sum() / (NUMBERS / 500)
    assert abs(chi_square - 499) < 3 * math.sqrt(2 * 499)
    # So is every bit.
    share = [(bits >> bit & 1).mean() for bit in range(64)]
    np.testing.assert_allclose(share, 0.5, atol=4 * 0.5 / math.sqrt(NUMBERS))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (bits_of("rows"), bits_of("gumbel")),
        (bits_of("rows", 5), bits_of("rows", 6)),
        (bits_of("rows", 5)[1:], bits_of("rows", 6)[:-1]),
        (bits_of("rows")[1:], bits_of("rows")[:-1]),
    ],
    ids=["streams", "updates", "shifted updates", "neighbours"],
)
def test_nothing_in_common(one, two):
    fractions = [uniform(torch.from_numpy(bits), torch.float64).numpy() for bits in (one, two)]
    assert abs(np.corrcoef(*fractions)[0, 1]) < 3 / math.sqrt(NUMBERS)
    # Half of all bits differ.
    differ = np.unpackbits((one ^ two).view(np.uint8)).mean()
    assert abs(differ - 0.5) < 3 * 0.5 / math.sqrt(64 * NUMBERS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("make", "mean", "variance", "fourth"),
    [(uniform, 0.5, 1 / 12, 1.8), (gumbel, 0.5772156649, math.pi**2 / 6, 5.4), (normal, 0.0, 1.0, 3.0)],
)
def test_moments(make, mean, variance, fourth, dtype):
    """Mean, variance and kurtosis of the distributions; bounds are 3 standard errors."""
    numbers = make(torch.from_numpy(bits_of(make.__name__)), dtype)
    assert numbers.dtype == dtype
    numbers = numbers.double().numpy()
    assert abs(numbers.mean() - mean) < 3 * math.sqrt(variance / NUMBERS)
    assert abs(numbers.var() / variance - 1) < 3 * math.sqrt((fourth - 1) / NUMBERS)
    assert abs(((numbers - mean) ** 4).mean() / variance**2 - fourth) < 0.3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_bits_are_finite(dtype):
    bits = torch.from_numpy(EXTREMES)
    fractions = uniform(bits, dtype)
    assert fractions.min() == 2.0**-24 and fractions.max() == 1 - 2.0**-24
    assert torch.equal(fractions.double(), uniform(bits, torch.float64))
    for make, lowest, highest in ((gumbel, -2.82, 16.64), (normal, -5.77, 5.77)):
        numbers = make(bits, dtype)
        assert torch.isfinite(numbers).all() and lowest < numbers.min() and numbers.max() < highest
