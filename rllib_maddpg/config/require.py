"""The one form of errors about settings: key, value, what is allowed, and the fix."""

from __future__ import annotations

from typing import Any

import numpy as np
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided

from rllib_maddpg.envs.errors import did_you_mean

_MAX_SHOWN = 500  # characters; some values are whole data sets


def require(config: AlgorithmConfig, key: str, ok: bool, allowed: str, fix: str, value: Any = NotProvided) -> None:
    """Raises unless `ok`; `value` where it is not the config's attribute `key`."""
    if not ok:
        value = getattr(config, key) if value is NotProvided else value
        raise ValueError(f"`{key}`={shown(value)} is not allowed: it must be {allowed}. {fix}".strip())


def shown(value: Any) -> str:
    """The value as an error shows it; never fails, whatever the value."""
    try:
        text = repr(value)
    except Exception:  # nested deeper than Python can follow, or a class of the user's
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def near(value: Any, allowed: Any) -> str:
    """A hint at what was meant, or where to look."""
    words = did_you_mean(value, map(str, allowed)) if isinstance(value, str) else ""
    return words.strip() or "See `MADDPGConfig.training` for all settings."


def is_whole(x: Any, least: int) -> bool:
    """Whether `x` is a whole number of at least `least`."""
    return isinstance(x, (int, np.integer)) and not isinstance(x, bool) and x >= least


def same(a: Any, b: Any) -> bool:
    """Whether two values of a setting are equal, where a tuple is the same as a list: some searches (HyperOpt's) swap them."""
    try:
        if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
            return len(a) == len(b) and all(map(same, a, b))
        if isinstance(a, dict) and isinstance(b, dict):
            return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        return bool(a == b)
    except Exception:  # such as arrays, whose comparison has no one answer
        return False
