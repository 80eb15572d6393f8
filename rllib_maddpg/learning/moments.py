"""Arithmetic of running moments, and what becomes of those of an update. No Ray here.

Shapes: `[...]` is `[S]` of S games, or nothing where there is one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# Below this share of its mean a standard deviation is what float32 makes of a constant; the second number is for a mean of 0.
CONSTANT, TINY = 1e-6, 1e-30


class NewMoments:
    """What an update's rows make of the moments, so long as nobody knows whether its numbers are finite."""

    def __init__(self, changes: list[tuple[Tensor, Tensor]]):
        """
        Args:
            changes: Tensors `[..., width]`, and what will be in them.
        """
        self._changes = changes

    @torch.no_grad()
    def keep(self, skip: Tensor | None) -> None:
        """Keeps them.

        Args:
            skip: As in `FiniteCheck`: without dimensions, or `[S]` of S games; above 0: all stays as it was.
        """
        is_sound = torch.isfinite(self._changes[0][1].sum(-1))
        if skip is not None:
            is_sound = is_sound & (skip == 0.0)
        for old, new in self._changes:
            old.copy_(torch.where(is_sound.unsqueeze(-1), new, old))


def merged(
    old: Mapping[str, Tensor], name: str, count: Tensor, each: Tensor, first: Tensor, second: Tensor
) -> dict[str, Tensor]:
    """Moments of a column with those of more numbers.

    Args:
        old: The moments before.
        name: Of the column.
        count: How many numbers there are more.
        each: How many there are now, of each number of the column.
        first, second: Sums of the new ones' differences from the old mean, and of their squares.
    """
    each = each.clamp(min=1.0)
    return {
        f"{name}_count": old[f"{name}_count"] + count,
        f"{name}_mean": old[f"{name}_mean"] + first / each,
        f"{name}_deviations": (old[f"{name}_deviations"] + second - first.square() / each).clamp(min=0.0),
    }


def mean_and_scale(own: Mapping[str, Tensor], name: str, each: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of a column, and one over its standard deviation; 1 for constants."""
    mean, std = own[f"{name}_mean"], (own[f"{name}_deviations"] / each.clamp(min=1.0)).sqrt()
    return mean, torch.where(std > CONSTANT * mean.abs() + TINY, std, 1.0).reciprocal()


def placed(parts: Mapping[str, Mapping[str, int]]) -> tuple[dict[str, int], dict[tuple[str, str], slice]]:
    """Of parts that lie side by side, module by module: width of each part, and place of each module's by (module, part)."""
    found, start = {}, 0
    for name, widths in parts.items():
        for m, width in widths.items():
            found[m, name] = slice(start, start + width)
            start += width
    return {name: sum(widths.values()) for name, widths in parts.items()}, found
