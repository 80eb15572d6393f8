"""`noise_type`: a word, or a class of the user's, which is tried before any actor starts."""

from __future__ import annotations

import functools
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_maddpg.config.kinds import Kind
from rllib_maddpg.config.require import require
from rllib_maddpg.sampling.noise import NOISE_SETTINGS, NOISES, NoiseError, check_noise


def _may_be_noise(x: Any) -> bool:
    if isinstance(x, str):
        return x in NOISES or "." in x
    return isinstance(x, (type, functools.partial))


NOISE_TYPE = Kind(
    f"one of {list(NOISES)}, a class with the interface of `rllib_maddpg.sampling.noise.Noise` (or a `functools.partial` of "
    "one), or its path 'package.module.Class'",
    _may_be_noise,
    words=tuple(NOISES),
)


def check_noise_type(config: AlgorithmConfig, **sizes: int) -> None:
    """The noise can be made, and gives noise.

    Args:
        config: Is asked for it.
        **sizes: Of the game, once it is known: `num_envs`, `width`.
    """
    try:
        check_noise(config.noise_type, {name: getattr(config, name) for name in NOISE_SETTINGS}, **sizes)
    except NoiseError as error:
        require(config, "noise_type", False, NOISE_TYPE.allowed, f"Here {error}")
