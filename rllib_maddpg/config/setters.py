"""The methods and dicts that set RLlib's settings: whatever is wrong with a value is a `ValueError` that names the setting."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.utils.annotations import override

from rllib_maddpg.config.checks import unknown_key_message
from rllib_maddpg.config.old_settings import old_key_message
from rllib_maddpg.config.require import require, same, shown
from rllib_maddpg.config.rllib_checks import is_old

METHODS = (
    "python_environment",
    "resources",
    "framework",
    "api_stack",
    "environment",
    "env_runners",
    "learners",
    "training",
    "callbacks",
    "evaluation",
    "offline_data",
    "multi_agent",
    "reporting",
    "checkpointing",
    "debugging",
    "fault_tolerance",
    "rl_module",
    "experimental",
)
# RLlib's keys in a config dict that have no attribute of their name.
_OF_RL_MODULE = ("model_config", "rl_module_spec")
_OF_MULTI_AGENT = ("policies", "policy_map_capacity", "policy_mapping_fn", "policies_to_train")
_OF_MULTI_AGENT += ("policy_states_are_swappable", "observation_fn", "count_steps_by")


class NamedErrors(AlgorithmConfig):
    """RLlib's config, which refuses keys and values of a config dict by their names."""

    @override(AlgorithmConfig)
    def update_from_dict(self, config_dict: Any) -> NamedErrors:
        """As RLlib's; `model_config` and `rl_module_spec` are keys, too.

        Raises:
            ValueError: For a key of an older RLlib, and for a value that RLlib cannot set.
        """
        if not isinstance(config_dict, (Mapping, AlgorithmConfig)):
            raise ValueError(f"A config must be a dict of settings, not {shown(config_dict)}.")
        settings = dict(config_dict.items())
        for key, value in settings.items():
            self._check_key(key, value)
        # The old ones that are as they were, as in a dict made of a whole config; RLlib does not take all of them.
        settings = {key: value for key, value in settings.items() if not is_old(key, vars(self))}
        of_rl_module = {key: settings.pop(key) for key in _OF_RL_MODULE if key in settings}
        _named(super().update_from_dict, self, settings, lambda one: AlgorithmConfig.update_from_dict(type(self)(), one))
        return self.rl_module(**of_rl_module) if of_rl_module else self

    def _check_key(self, key: Any, value: Any) -> None:
        """What RLlib would pass over, or stumble over without naming it."""
        known = vars(self)
        if not isinstance(key, str):
            raise ValueError(f"A config's keys are words, not {shown(key)}.")
        if is_old(key, known) and not same(value, known.get(key)):
            raise ValueError(old_key_message(key))
        if key.startswith("evaluation_") and key not in known:
            raise ValueError(unknown_key_message(key, list(known)))
        if key == "in_evaluation":
            # RLlib would take the config for the one of an evaluation, and then miss that one.
            require(
                self, key, same(value, self.in_evaluation), "left alone", "RLlib sets it in the config for evaluation.", value
            )
        if key == "multiagent":
            ok = isinstance(value, Mapping) and all(name in _OF_MULTI_AGENT for name in value)
            require(self, key, ok, f"a dict of {list(_OF_MULTI_AGENT)}", "", value)


def name_settings(cls: type) -> type:
    """Class decorator: `METHODS` name the setting whose value they cannot set."""
    for name in METHODS:
        setattr(cls, name, _naming(getattr(cls, name)))
    return cls


def _naming(method: Callable) -> Callable:
    @functools.wraps(method)
    def call(self: AlgorithmConfig, *args: Any, **settings: Any) -> AlgorithmConfig:
        if args:
            bound = inspect.signature(method).bind_partial(self, *args)
            placed = dict(list(bound.arguments.items())[1:])
            for key in placed.keys() & settings.keys():
                raise ValueError(f"`{key}` is given twice: {shown(placed[key])} and {shown(settings[key])}.")
            settings = placed | settings
        _named(lambda given: method(self, **given), self, settings, lambda one: method(type(self)(), **one))
        return self

    return call


def _named(apply: Callable, config: AlgorithmConfig, settings: dict[str, Any], alone: Callable) -> None:
    """Applies settings; on an error looks for the one that cannot be set even `alone`."""
    try:
        apply(settings)
    except Exception as error:
        told = isinstance(error, ValueError) or "unexpected keyword argument" in str(error)
        if config._is_frozen or (told and any(key in str(error) for key in settings)):
            raise
        for key, value in settings.items():
            try:
                alone({key: value})
            except Exception as reason:
                text = f"`{key}`={shown(value)} is not allowed: RLlib cannot set it ({type(reason).__name__}: {reason})."
                raise ValueError(text) from error
        raise
