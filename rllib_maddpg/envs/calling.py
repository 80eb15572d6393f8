"""Whether a class or function takes `env_config` as its one argument, as RLlib calls environments, or as keywords."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pettingzoo import AECEnv, ParallelEnv
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rllib_maddpg.envs.errors import EnvError

# Leading underscores do not count; "" is a parameter of underscores only.
_CONFIG_NAMES = ("config", "cfg", "conf", "ctx", "context")
_NAMES_OF_CONFIGS = {"", *_CONFIG_NAMES, *(f"env_{name}" for name in _CONFIG_NAMES), "config_dict", "env_config_dict"}


def takes_config(name: str, make: Callable, config: Mapping) -> bool:
    """Whether `make` is called as `make(config)`; if not, as `make(**config)`.

    Args:
        name: Of the env, for the error.
        make: A class or function.
        config: What it is called with.

    Raises:
        EnvError: If either could be meant.
    """
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # none to be had (some builtins)
        return True
    if not _binds(signature, config):
        return False
    positional = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    is_rllib = isinstance(make, type) and issubclass(make, MultiAgentEnv)
    is_pettingzoo = _is_pettingzoo(make)
    if not positional:  # *args
        if not (is_rllib or is_pettingzoo):
            raise _unclear(name, signature, config)
        return is_rllib
    first, is_alone = positional[0], len(positional) == 1
    # Keys that are parameters; whatever else there is may be meant for **kwargs.
    fits_by_keyword = bool(config) and config.keys() <= signature.parameters.keys() and _binds(signature, **config)
    if _is_config(first, is_alone):
        if fits_by_keyword and not is_rllib:
            raise _unclear(name, signature, config)
        return True
    needs_value = first.default is first.empty
    if is_rllib and fits_by_keyword:
        raise _unclear(name, signature, config)
    if is_rllib and (needs_value or is_alone):
        return True
    if is_pettingzoo or not is_alone:
        return False
    if needs_value:
        # Nothing else can have been meant, unless the config has a value of that name.
        if fits_by_keyword:
            raise _unclear(name, signature, config)
        return True
    if config and not fits_by_keyword:
        raise _unclear(name, signature, config)
    return False


def is_for_rllib(make: Callable) -> bool:
    """Whether RLlib could call `make` with the config, and play what it makes."""
    try:
        return not _is_pettingzoo(make) and _binds(inspect.signature(make), {})
    except (TypeError, ValueError):
        return True


def _is_pettingzoo(make: Callable) -> bool:
    return isinstance(make, type) and issubclass(make, ParallelEnv | AECEnv)


def _binds(signature: inspect.Signature, *args: Any, **kwargs: Any) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _is_config(parameter: inspect.Parameter, is_alone: bool) -> bool:
    if parameter.name.lower().strip("_") in _NAMES_OF_CONFIGS:
        return True
    annotation = parameter.annotation
    if isinstance(annotation, str):  # from __future__ import annotations
        return "EnvContext" in annotation or (is_alone and annotation.lower().startswith(("dict", "mapping", "typing.dict")))
    wraps = typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated)
    kinds = [typing.get_origin(kind) or kind for kind in (annotation, *(typing.get_args(annotation) if wraps else ()))]
    return any(kind is EnvContext or (is_alone and (kind is dict or kind is Mapping)) for kind in kinds)


def _unclear(name: str, signature: inspect.Signature, config: Mapping) -> EnvError:
    return EnvError(
        f"env={name!r} takes {signature}, so it is not clear whether env_config={dict(config)!r} is its one argument, as RLlib "
        "has it, or keywords. Name its first parameter `config` if it takes the whole; if it takes keywords, give "
        "`lambda config: make(**config)` for it."
    )
