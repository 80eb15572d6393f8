"""Checks of `model_config`'s keys for convolutions, as far as they can be judged without images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.models.utils import get_initializer_fn

from rllib_maddpg.config.require import is_whole, near, require, same, shown
from rllib_maddpg.modules.image_filters import PADDINGS

ACTIVATIONS = ("relu", "tanh", "swish", "silu", "linear")


def check_conv_keys(config: AlgorithmConfig, model: Mapping[str, Any]) -> None:
    """Values of a `model_config`'s keys for convolutions.

    Raises:
        ValueError: Naming key and value.
    """
    for prefix in ("", "critic_"):
        key = f"{prefix}conv_filters"
        _require_filters(config, key, model.get(key))
        key = f"{prefix}conv_activation"
        ok = model.get(key) is None or any(same(model[key], word) for word in ACTIVATIONS)
        require(config, named(key), ok, f"one of {list(ACTIVATIONS)}", near(model.get(key), ACTIVATIONS), model.get(key))
    for key, shape in (("conv_kernel_initializer", (2, 3, 4, 4)), ("conv_bias_initializer", (2,))):
        _require_initializer(config, key, model, shape)


def _require_initializer(config: AlgorithmConfig, key: str, model: Mapping[str, Any], shape: tuple[int, ...]) -> None:
    """An initializer does for parameters of a shape: it is tried, without drawing of anybody's random numbers."""
    of_kwargs, ok, value, kwargs = f"{key}_kwargs", True, model.get(key), model.get(f"{key}_kwargs")
    try:
        initialize = get_initializer_fn(value, framework="torch")
    except Exception:  # RLlib's, or whatever a value that is no name makes of it
        ok = False
    fix = "For example 'orthogonal_'. None: torch's default."
    require(config, named(key), ok, "the name of one of `torch.nn.init`'s functions, which ends with '_'", fix, value)
    ok = kwargs is None or isinstance(kwargs, dict)
    require(config, named(of_kwargs), ok, "a dict or None", "It is what the initializer gets.", kwargs)
    if value is None:
        return
    try:
        with torch.random.fork_rng(devices=[]):
            initialize(torch.empty(shape), **(kwargs or {}))
    except Exception as error:  # the initializer's
        allowed = f"an initializer for parameters of {len(shape)} dimensions, which takes `{of_kwargs}`={shown(kwargs)}"
        require(config, named(key), False, allowed, f"It raised {type(error).__name__}: {error}", value)


def _require_filters(config: AlgorithmConfig, key: str, filters: Any) -> None:
    ok = filters is None or (isinstance(filters, (list, tuple)) and bool(filters) and all(map(_is_layer, filters)))
    allowed = "a list of [channels, kernel, stride] or [channels, kernel, stride, padding], one for each layer"
    fix = f"Kernel and stride: a whole number or [height, width]; padding: one of {list(PADDINGS)}. [[16, 4, 2], [32, 4, 2]]."
    require(config, named(key), ok, allowed, fix, filters)


def _is_layer(layer: Any) -> bool:
    if not isinstance(layer, (list, tuple)) or len(layer) not in (3, 4):
        return False
    channels, *sizes = layer[:3]
    return is_whole(channels, 1) and all(map(_is_size, sizes)) and layer[3:] in ([], (), ["same"], ["valid"])


def _is_size(size: Any) -> bool:
    pair = isinstance(size, (list, tuple)) and len(size) == 2 and all(is_whole(n, 1) for n in size)
    return pair or is_whole(size, 1)


def named(key: str) -> str:
    """What errors call a key of a `model_config`."""
    return f"model_config[{key!r}]"
