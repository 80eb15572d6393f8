"""Checks of observation spaces that are images, or look like some."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

# From which on both sides of a Box of bytes are those of an image.
_LEAST_SIDE = 16


def check_image_space(space: gym.Space, agent: Any) -> None:
    """An observation space that is an image, or looks like one, is one that encoders take.

    Raises:
        ValueError: Naming agent, space and what to do.
    """
    if not isinstance(space, gym.spaces.Box):
        return
    what = f"Agent {agent!r}: observation space {space}"
    if len(space.shape) == 2 and space.dtype == np.uint8 and min(space.shape) >= _LEAST_SIDE:
        raise ValueError(
            f"{what} looks like an image without channels. Give it some: SuperSuit's `frame_stack_v2` makes [height, width, "
            "frames] of it, `reshape_v0` with shape (height, width, 1) a single one; or, if a vector is what you want, use "
            "`flatten_v0`."
        )
    if len(space.shape) > 3:
        raise ValueError(
            f"{what} has {len(space.shape)} dimensions. Images have three, [height, width, channels]: put the others beside "
            "the channels (SuperSuit's `reshape_v0`); or, if a vector is what you want, use `flatten_v0`."
        )
    if len(space.shape) == 3:
        _check_pixels(space, what)


def _check_pixels(space: gym.spaces.Box, what: str) -> None:
    if 0 in space.shape:
        raise ValueError(f"{what} has no pixels. Give it some.")
    if space.dtype not in (np.uint8, np.float32):
        raise ValueError(
            f"{what} has rank 3, which is an image, but pixels of {space.dtype}. Give uint8 or float32 (SuperSuit's "
            "`dtype_v0`); or, if it is no image, a vector (`flatten_v0`)."
        )
    low, high = float(space.low.min()), float(space.high.max())
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(
            f"{what} is an image whose pixels have no bounds, by which they are scaled to 0 ... 1. Give finite ones, `low` "
            "below `high`; or, if it is no image, a vector (SuperSuit's `flatten_v0`)."
        )
