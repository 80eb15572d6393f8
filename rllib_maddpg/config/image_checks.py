"""Checks whether what encodes images fits what the agents observe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_maddpg.config.conv_checks import named
from rllib_maddpg.config.model_checks import has_own_networks, merged_model_config, module_classes
from rllib_maddpg.config.require import require, same
from rllib_maddpg.modules.image_filters import default_filters, layers
from rllib_maddpg.modules.images import CONV_KEYS
from rllib_maddpg.modules.rule_modules import has_networks
from rllib_maddpg.modules.views import VIEWS
from rllib_maddpg.rows.observations import image_shape


def check_images(config: AlgorithmConfig, spaces: Mapping[Any, gym.Space], module_of: Mapping[Any, str]) -> None:
    """Images go with all settings, and encoders fit those that they see; where there are none, nobody describes encoders.

    Args:
        config: A `MADDPGConfig` whose `policies` are those of its env.
        spaces: Agent -> what it observes.
        module_of: Agent -> its module.

    Raises:
        ValueError: Naming key, agent and layer.
    """
    images = {agent: shape for agent, space in spaces.items() if (shape := image_shape(space))}
    classes = module_classes(config, config.policies)
    if images:
        agent = next(iter(images))
        fix = f"Agent {agent!r} observes an image, whose encoder gets it scaled to 0 ... 1 already. Set False."
        require(config, "normalize_observations", not config.normalize_observations, "False with images", fix)
    for module in config.policies:
        model = merged_model_config(config, module)
        if has_networks(classes[module]) and not has_own_networks(classes[module]):
            if not images:
                _refuse_conv_keys(model, spaces)
            own = {agent: shape for agent, shape in images.items() if module_of[agent] == module}
            view = config.of_module(module, "critic_view")
            view = VIEWS[view] if isinstance(view, str) else view
            infers = config.of_module(module, "infer_other_policies") and view.is_shared
            _check_sizes("conv_filters", model.get("conv_filters"), images if infers else own)
            key = "conv_filters" if model.get("critic_conv_filters") is None else "critic_conv_filters"
            if view.observations:
                _check_sizes(key, model.get(key), images if view.is_shared else own)


def _refuse_conv_keys(model: Mapping[str, Any], spaces: Mapping[Any, gym.Space]) -> None:
    default = vars(DefaultModelConfig())
    for key in CONV_KEYS:
        if model.get(key) is not None and not same(model[key], default.get(key)):
            agent, space = next(iter(spaces.items()))
            raise ValueError(
                f"`{named(key)}` is no setting of MADDPG's networks where no agent observes an image (agent {agent!r} "
                f"observes {space}). Take it out, or let the env give images: Boxes of rank 3, [height, width, channels]."
            )


def _check_sizes(key: str, filters: Any, images: Mapping[Any, tuple[int, int, int]]) -> None:
    for agent, shape in images.items():
        for number, (sides, kernel) in enumerate(layers(shape, filters or default_filters(shape))):
            if any(k > side for k, side in zip(kernel, sides, strict=True)):
                seen = "an image" if number == 0 else f"a result of layer {number - 1}"
                raise ValueError(
                    f"Agent {agent!r}: its image of {_by(shape[:2])} is too small for `{named(key)}`: layer {number} has a "
                    f"kernel of {_by(kernel)}, and sees {seen} of {_by(sides)}. Take fewer layers, or smaller kernels and "
                    "strides; or make larger images (SuperSuit's `resize_v1`)."
                )


def _by(sides: Any) -> str:
    return " x ".join(map(str, sides))
