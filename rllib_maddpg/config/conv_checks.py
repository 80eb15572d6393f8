"""Checks of `model_config`'s keys for convolutions, as far as they can be judged without images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.models.utils import get_initializer_fn

from rllib_maddpg.config.require import is_whole, near, require, same
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
    for key in ("conv_kernel_initializer", "conv_bias_initializer"):
        ok, value = True, model.get(key)
        try:
            get_initializer_fn(value, framework="torch")
        except Exception:  # RLlib's, or whatever a value that is no name makes of it
            ok = False
        fix = "For example 'orthogonal_'. None: torch's default."
        require(config, named(key), ok, "the name of one of `torch.nn.init`'s functions, which ends with '_'", fix, value)
        key = f"{key}_kwargs"
        ok = model.get(key) is None or isinstance(model[key], dict)
        require(config, named(key), ok, "a dict or None", "It is what the initializer gets.", model.get(key))


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
