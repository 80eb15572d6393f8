"""Random numbers that are a pure function of (seed, stream, number, element), by integer operations only.

So they are equal on every device, for any number of processes that share a batch, and in whatever order they are asked for;
whoever knows the number of an update can have its random numbers again.

The function is SplitMix64 (Steele, Lea and Flood 2014, figure 19): the stream of each number begins at a place of its own,
which is drawn the same way. It takes NumPy arrays and torch tensors, of int64 whose bits count as those of uint64. No Ray here.
"""

from __future__ import annotations

import math
import zlib
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

Bits = TypeVar("Bits", np.ndarray, Tensor)

_WORD = 2**64


def _signed(x: int) -> int:
    """The int64 with the bits of x modulo 2^64."""
    x %= _WORD
    return x - _WORD if x >= _WORD // 2 else x


_GAMMA = _signed(0x9E3779B97F4A7C15)
# Shift, then multiply.
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, None))
# The same for NumPy, which takes arrays of no dimension in half the time of Python's numbers.
_ARRAY_ROUNDS = [(np.array(shift, np.uint64), factor and np.array(factor, np.uint64)) for shift, factor in _ROUNDS]
_ELEVEN = np.array(11, np.uint64)
# Bits of a uniform number: with a half added it is exact in float32, and neither 0 nor 1.
_FRACTION = 23


def key_of(seed: Any, stream: str) -> int:
    """The key of a stream of random numbers.

    Args:
        seed: As `numpy.random.default_rng` takes it; None: another one each time.
        stream: Its name; streams of one seed have nothing in common.
    """
    return _signed(_mixed_int(int(np.random.default_rng(seed).integers(2**63)) ^ zlib.crc32(stream.encode())))


def random_bits(key: int | Bits, number: int | Bits, elements: Bits) -> Bits:
    """64 random bits for each element, int64.

    Args:
        key: `key_of` a stream; a number, or int64 `[1]`.
        number: Such as that of the update, int64 to be broadcast over the elements, or one number >= 0.
        elements: Their numbers >= 0, int64.
    """
    start = number * _GAMMA + key
    start = _signed(_mixed_int(start % _WORD) + _GAMMA) if isinstance(start, int) else _mixed(start) + _GAMMA
    return _mixed(elements * _GAMMA + start)


def _mixed_int(z: int) -> int:
    """SplitMix64's output function of 0 <= z < 2^64: an array of one number would take five times as long."""
    for shift, factor in _ROUNDS:
        z ^= z >> shift
        if factor is not None:
            z = z * factor % _WORD
    return z


def _mixed(z: Bits) -> Bits:
    """The same of all elements, in place."""
    if isinstance(z, np.ndarray):
        unsigned = z.view(np.uint64)
        for shift, factor in _ARRAY_ROUNDS:
            unsigned ^= unsigned >> shift
            if factor is not None:
                unsigned *= factor
        return z
    for shift, factor in _ROUNDS:
        # `>>` of a signed number brings ones in, which the mask takes out.
        z ^= (z >> shift) & (2 ** (64 - shift) - 1)
        if factor is not None:
            z *= _signed(factor)
    return z


def below(bits: Bits, size: int) -> Bits:
    """Whole numbers of 0 ... size - 1, int64, for a size of at most 2^53.

    They are the 53 upper bits, as a fraction, times `size`: one product of float64, which is rounded alike everywhere and never
    to `size`. The chances of two numbers differ by less than 2 size / 2^53 of themselves: 2e-10 for a million.
    """
    if isinstance(bits, np.ndarray):
        numbers = (bits.view(np.uint64) >> _ELEVEN).view(np.int64).astype(np.float64)
        numbers *= np.array(size * 2.0**-53)
        return numbers.astype(np.int64)
    return ((bits >> 11) & (2**53 - 1)).to(torch.float64).mul_(size * 2.0**-53).to(torch.int64)


def fraction(bits: np.ndarray) -> np.ndarray:
    """The 53 upper bits as a fraction, float64 in [0, 1)."""
    return (bits.view(np.uint64) >> _ELEVEN).view(np.int64).astype(np.float64) * 2.0**-53


def _uniform(bits: Tensor, shift: int, dtype: torch.dtype) -> Tensor:
    """Numbers within (0, 1) of the 23 bits from `shift` on."""
    return (((bits >> shift) & (2**_FRACTION - 1)).to(dtype) + 0.5) * 2.0**-_FRACTION


def uniform(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Uniform numbers within (0, 1), multiples of 2^-24 in any dtype."""
    return _uniform(bits, 64 - _FRACTION, dtype)


def gumbel(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard Gumbel noise, -log(-log(u)), from -2.8 to 16.6."""
    return uniform(bits, dtype).log_().neg_().log_().neg_()


def normal(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard normal noise (Box and Muller 1958), within 5.8 of 0."""
    radius = uniform(bits, dtype).log_().mul_(-2.0).sqrt_()
    return _uniform(bits, 64 - 2 * _FRACTION, dtype).mul_(2.0 * math.pi).cos_().mul_(radius)
