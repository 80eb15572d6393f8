"""Filters of convolutions, as RLlib's `conv_filters` has them: `[channels, kernel, stride]` or `[..., padding]` for each layer.

Kernel and stride are a number, or one for height and one for width. Padding is "same" (the default) or "valid".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

PADDINGS = ("same", "valid")
# RLlib's own (`ray.rllib.models.utils.get_filter_config`), by height and width. Last layers with kernels of 11 x 11 shall
# leave one pixel, as they did in the models of RLlib's old stack: without padding.
_KNOWN: dict[tuple[int, int], list[list]] = {
    (96, 96): [[16, [8, 8], 4], [32, [4, 4], 2], [256, [11, 11], 2, "valid"]],
    (84, 84): [[16, [8, 8], 4], [32, [4, 4], 2], [256, [11, 11], 1, "valid"]],
    (64, 64): [[16, [4, 4], 2], [32, [4, 4], 2], [64, [4, 4], 2], [128, [4, 4], 2]],
    (42, 42): [[16, [4, 4], 2], [32, [4, 4], 2], [256, [11, 11], 1, "valid"]],
    (10, 10): [[16, [5, 5], 2], [32, [5, 5], 2]],
}
# Other images are halved until no side is longer than this.
_SMALL = 4
_MOST_CHANNELS = 64


def default_filters(shape: Sequence[int]) -> list[list]:
    """The filters for an image of a shape (height, width, channels), where nobody gives any.

    They are RLlib's for the sizes that it knows. Others are halved by kernels of 4 x 4 until both sides are at most 4, with 16,
    32, 64, 64 ... channels: so there are at most 1,024 features.
    """
    height, width = shape[:2]
    if (height, width) in _KNOWN:
        return _KNOWN[height, width]
    filters, channels = [], 16
    while not filters or max(height, width) > _SMALL:
        strides = [2 if side > _SMALL else 1 for side in (height, width)]
        filters.append([channels, [min(4, height), min(4, width)], strides])
        height, width = (math.ceil(side / stride) for side, stride in zip((height, width), strides, strict=True))
        channels = min(2 * channels, _MOST_CHANNELS)
    return filters


def layers(shape: Sequence[int], filters: Sequence[Sequence]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """For each layer the height and width of what it sees, and of its kernel; the last one has fitted all before it."""
    sides = tuple(shape[:2])
    for _, kernel, stride, *padding in filters:
        kernels, strides = pair(kernel), pair(stride)
        yield sides, kernels
        kept = sides if padding in ([], ["same"]) else [side - k + 1 for side, k in zip(sides, kernels, strict=True)]
        sides = tuple(math.ceil(side / step) for side, step in zip(kept, strides, strict=True))


def pair(number: Any) -> tuple[int, int]:
    """A number for height and width, or one for each."""
    return tuple(number) if isinstance(number, (list, tuple)) else (number, number)
