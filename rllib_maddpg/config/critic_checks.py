"""Checks of attention critics: one network for all modules that have it leaves some settings no choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_maddpg.config.model_checks import model_config_of, module_classes, specs_of
from rllib_maddpg.config.require import is_whole, require, same, shown
from rllib_maddpg.modules.attention import HEADS
from rllib_maddpg.modules.critic_types import ATTENTION_CRITIC
from rllib_maddpg.modules.rule_modules import has_networks
from rllib_maddpg.modules.views import VIEWS, View

# Numbers and words of a step of the critic's weights.
_OF_A_STEP = ("critic_lr", "lr", "tau", "grad_clip", "grad_clip_by")
_HEADS_KEY = "critic_attention_heads"


def check_critics(config: AlgorithmConfig, has_images: bool = False) -> None:
    """Modules with attention critics agree in what they have in common, and nobody else asks for heads.

    Args:
        config: With its env's `policies`.
        has_images: Whether some agent observes images.

    Raises:
        ValueError: Naming key and module.
    """
    classes = module_classes(config, config.policies)
    modules = [m for m, cls in classes.items() if has_networks(cls)]
    models = {m: {**config.model_config, **model_config_of(specs_of(config, modules)[m])} for m in modules}
    having = [m for m in modules if config.of_module(m, "critic_type") == ATTENTION_CRITIC]
    for module in modules:
        _check_heads(config, models[module], module in having)
    if not having:
        return
    fix = "Set 'mlp', whose critics encode images by `conv_filters`; or let the agents observe features."
    allowed = "'mlp' where agents observe images: attention critics have no encoders for these"
    require(config, "critic_type", not has_images, allowed, fix, ATTENTION_CRITIC)
    fix = "Set it to False, or `critic_type='mlp'`."
    allowed = "False with attention critics: they are one network, which learns from the same rows for all modules"
    require(config, "minibatch_per_module", not config.minibatch_per_module, allowed, fix)
    alone = config.learner_class.why_not_stacked()
    fix = f"Set 'mlp', or another `learner_class`: {alone}."
    require(config, "critic_type", not alone, "'mlp' where each module is computed by itself", fix, ATTENTION_CRITIC)
    for module in having:
        _check_view(config, module)
        for name in ("build_critic", "q_values"):
            _check_not_overridden(classes[module], name, module)
    _check_one_step(config, having)


def _check_heads(config: AlgorithmConfig, model: Mapping[str, Any], has_attention: bool) -> None:
    heads, key = model.get(_HEADS_KEY), f"model_config['{_HEADS_KEY}']"
    allowed = "a whole number > 0, or None where no critic is an attention critic"
    ok = heads is None or (is_whole(heads, 1) and has_attention)
    require(config, key, ok, allowed, f"The default is {HEADS}; it goes with `critic_type='attention'`.", heads)
    if not has_attention:
        return
    name = "critic_fcnet_hiddens" if model.get("critic_fcnet_hiddens") else "fcnet_hiddens"
    hiddens, heads = model[name], heads or HEADS
    fix = f"The first width is that of what an agent is embedded in, which {heads} heads share (`{key}`)."
    ok = bool(hiddens) and hiddens[0] % heads == 0
    allowed = f"a list of widths, the first one divisible by {heads}, with attention critics"
    require(config, f"model_config['{name}']", ok, allowed, fix, hiddens)


def _check_view(config: AlgorithmConfig, module: str) -> None:
    view = config.of_module(module, "critic_view")
    seen: View = VIEWS[view] if isinstance(view, str) else view
    allowed = (
        f"'all' or 'state+all', or a View of all agents with their observations, for the attention critic of module {module!r}"
        ", which compares what agents observe and do"
    )
    ok = seen.is_shared and seen.observations
    require(config, "critic_view", ok, allowed, "Set one of these, or `critic_type='mlp'` for the module.", view)


def _check_not_overridden(cls: Any, name: str, module: str) -> None:
    from rllib_maddpg.modules.rl_module import MADDPGTorchRLModule

    if getattr(cls, name) is not getattr(MADDPGTorchRLModule, name):
        raise ValueError(
            f"`critic_type`='attention' of module {module!r}: {cls.__name__} overrides `{name}`, which would not be asked. Set "
            "'mlp' for other critics, or override `build_attention_critic` instead."
        )


def _check_one_step(config: AlgorithmConfig, modules: list[str]) -> None:
    """One network has one step."""
    first = modules[0]
    for module in modules[1:]:
        for key in _OF_A_STEP:
            mine, others = config.of_module(module, key), config.of_module(first, key)
            if not same(mine, others) and (key != "lr" or config.of_module(module, "critic_lr") is None):
                raise ValueError(
                    f"`algorithm_config_overrides_per_module`: `{key}`={shown(mine)} of module {module!r} and {shown(others)} "
                    f"of {first!r} are not allowed: they must be equal, since the attention critics of all modules are one "
                    "network. Set one value for all, or `critic_type='mlp'` for one of the modules."
                )
