"""The ways in which `env_config` becomes an env (not yet adapted to RLlib): each source is called with the config."""

import importlib
import inspect
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import gymnasium as gym

from rllib_maddpg.envs.calling import takes_config
from rllib_maddpg.envs.errors import EnvError, did_you_mean

# All sources are plain records of names and callables, so that cloudpickle can send them to env runners.


@dataclass(frozen=True)
class ConfigSource:
    """A callable which takes the config as its one argument: RLlib's convention."""

    name: str
    make: Callable[[dict], Any]

    def __call__(self, config: dict) -> Any:
        return self.make(config)


@dataclass(frozen=True)
class KeywordSource:
    """A callable which takes keyword arguments only, such as a PettingZoo module's `parallel_env`."""

    name: str
    make: Callable[..., Any]

    def __call__(self, config: dict) -> Any:
        return _call_with_keywords(self.name, self.make, config, allowed=self.make)


# Games of PettingZoo's whose agents observe what is drawn, where nothing is drawn (1.27: `draw()` returns) unless a
# `render_mode` is set: without one all images of an episode are the same.
_DRAWN_IF_RENDERED = ("pettingzoo.butterfly.cooperative_pong", "pettingzoo.butterfly.pistonball")


@dataclass(frozen=True)
class ModuleSource:
    """A module laid out like PettingZoo's: `parallel_env` or, for games of turns, only `env`.

    Games that draw what agents observe only with a `render_mode` have "rgb_array", which opens no window, unless the config has
    another.
    """

    name: str
    module: str

    def __call__(self, config: dict) -> Any:
        module = import_module(self.module)
        make = getattr(module, "parallel_env", None) or module.env
        if self.module.rpartition("_v")[0] in _DRAWN_IF_RENDERED and config.get("render_mode") is None:
            config = {**config, "render_mode": "rgb_array"}
        # `parallel_env` is `(**kwargs)` in most modules, the class below it names them.
        return _call_with_keywords(self.name, make, config, allowed=getattr(module, "raw_env", make))


@dataclass(frozen=True)
class GymnasiumSource:
    """An env of Gymnasium's registry. It holds the spec, since other processes may not have registered the id."""

    name: str
    spec: gym.envs.registration.EnvSpec

    def __call__(self, config: dict) -> Any:
        entry_point = self.spec.entry_point
        try:
            if isinstance(entry_point, str):
                entry_point = gym.envs.registration.load_env_creator(entry_point)
            return _call_with_keywords(self.name, partial(gym.make, self.spec), config, allowed=entry_point)
        except (gym.error.DependencyNotInstalled, ImportError) as error:
            raise EnvError(f"env={self.name!r} needs a package that is not installed: {error}") from error


@dataclass(frozen=True)
class CallableSource:
    """A class or function of the user's, which takes the config as its one argument (RLlib's convention) or as keywords.

    Its kind and its signature say which:

    - PettingZoo classes, and what has several parameters or keywords only, get keywords. A `MultiAgentEnv` to which RLlib would
      give the whole config, where its items fit as keywords, too, is refused.
    - What has a first parameter `config` (or `env_config`, `cfg`, `ctx`, `context`, `_`, ..., or annotated as an `EnvContext`)
      gets the config; so do `MultiAgentEnv`s whose first parameter needs a value or is the only one, and functions and
      classes that need exactly one value.
    """

    name: str
    make: Callable[..., Any]

    def __call__(self, config: dict) -> Any:
        if takes_config(self.name, self.make, config):
            return self.make(config)
        whole = " If it takes all of env_config as its one argument, name that parameter `config`."
        return _call_with_keywords(self.name, self.make, config, allowed=self.make, hint=whole)


Source = CallableSource | ConfigSource | KeywordSource | ModuleSource | GymnasiumSource


def import_module(module: str) -> ModuleType:
    """Imports without the warning by which PettingZoo 1.27 asks for its own registry, which 1.25 does not have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module(module)


def _call_with_keywords(name: str, make: Callable, config: dict, allowed: Callable | None, hint: str = "") -> Any:
    try:
        return make(**config)
    except TypeError as error:
        key = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if key is None:
            raise
        known = _keywords(allowed)
        names = f" Allowed: {known}." if known else ""
        raise EnvError(
            f"env_config[{key[1]!r}]={config.get(key[1])!r}: env={name!r} takes no such keyword."
            f"{did_you_mean(key[1], known)}{names} Rename the key or take it out of env_config.{hint}"
        ) from error


def _keywords(make: Callable | None) -> list[str]:
    """Returns the names of the keyword arguments of `make`; none where its signature hides them."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
