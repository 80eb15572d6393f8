"""The one form of errors about settings: key, value, what is allowed, and the fix."""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided

from rllib_maddpg.envs.errors import did_you_mean


def require(config: AlgorithmConfig, key: str, ok: bool, allowed: str, fix: str, value: Any = NotProvided) -> None:
    """Raises unless `ok`; `value` where it is not the config's attribute `key`."""
    if not ok:
        value = getattr(config, key) if value is NotProvided else value
        raise ValueError(f"`{key}`={value!r} is not allowed: it must be {allowed}. {fix}")


def near(value: Any, allowed: Any) -> str:
    """A hint at what was meant, or where to look."""
    return did_you_mean(str(value), map(str, allowed)).strip() or "See `MADDPGConfig.training` for all settings."


def is_whole(x: Any, least: int) -> bool:
    """Whether `x` is a whole number of at least `least`."""
    return isinstance(x, int) and not isinstance(x, bool) and x >= least
