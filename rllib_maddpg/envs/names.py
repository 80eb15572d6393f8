"""From the name of an environment to its source, in a fixed order of lookup."""

import importlib
import pkgutil
import re
from collections.abc import Iterator

import gymnasium as gym
from ray.tune.registry import ENV_CREATOR, _global_registry

from rllib_maddpg.envs.calling import is_for_rllib
from rllib_maddpg.envs.errors import EnvError, did_you_mean
from rllib_maddpg.envs.sources import (
    CallableSource,
    ConfigSource,
    GymnasiumSource,
    ModuleSource,
    Source,
    import_module,
)

PETTINGZOO_FAMILIES = ("atari", "butterfly", "classic", "sisl")
_MPE_PREFIXES = ("mpe2/", "mpe/")


def find_source(name: str) -> Source:
    """Returns the source of the env called `name`.

    The first that knows the name wins: (1) `ray.tune.register_env`, (2) mpe2, (3) PettingZoo `family/module`,
    (4) Gymnasium, (5) `package.module:callable` or, as Gymnasium has it, `package.module:registered-id`.

    Raises:
        EnvError: If none does, or if a package that the env needs is not installed.
    """
    source = _registered(name) or _mpe2(name) or _pettingzoo(name) or _gymnasium(name) or _imported(name)
    if source is None:
        raise _unknown(name)
    return source


def _registered(name: str) -> Source | None:
    # The registry stores keys as ASCII.
    if not name.isascii() or not _global_registry.contains(ENV_CREATOR, name):
        return None
    make = _global_registry.get(ENV_CREATOR, name)
    # RLlib calls what is registered in one way only; what it cannot call so, or play, has other rules.
    return ConfigSource(name, make) if is_for_rllib(make) else CallableSource(name, make)


def _mpe2(name: str) -> Source | None:
    prefix = next((p for p in _MPE_PREFIXES if name.startswith(p)), "")
    scenarios = _env_modules("mpe2")
    if prefix and not scenarios:
        raise EnvError(f"env={name!r} needs the package mpe2, which is not installed. Fix: pip install mpe2")
    scenario = _newest(name.removeprefix(prefix), scenarios)
    if scenario is None:
        return None
    return _module_source(name, f"mpe2.{scenario}", "pip install mpe2")


def _pettingzoo(name: str) -> Source | None:
    family, _, env = name.partition("/")
    if family not in PETTINGZOO_FAMILIES:
        return None
    module = _newest(env, _env_modules(f"pettingzoo.{family}"))
    if module is None:
        return None
    return _module_source(name, f"pettingzoo.{family}.{module}", f"pip install 'pettingzoo[{family}]'")


def _gymnasium(name: str) -> Source | None:
    try:
        # A colon means an import to Gymnasium as well as to us: `package.module:callable` has its turn later.
        return None if ":" in name else GymnasiumSource(name, gym.spec(name))
    except gym.error.DeprecatedEnv as error:
        raise EnvError(f"env={name!r}: {error}") from error
    except gym.error.Error:
        return None


def _imported(name: str) -> Source | None:
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute):
        return None
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise EnvError(
            f"env={name!r}: cannot import {module_name!r} ({error}). Install the package that has it, or put its "
            "folder on PYTHONPATH."
        ) from error
    make = getattr(module, attribute, None)
    if make is None and attribute in gym.registry:
        # Gymnasium's own spelling: a module that registers ids, and one of them.
        return GymnasiumSource(name, gym.spec(attribute))
    if not callable(make):
        callables = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise EnvError(
            f"env={name!r}: module {module_name!r} has no callable {attribute!r}.{did_you_mean(attribute, callables)} "
            f"Name a class or function of it, allowed are {callables}; or an id that it registers with Gymnasium."
        )
    return CallableSource(name, make)


def _module_source(name: str, module: str, fix: str) -> ModuleSource:
    try:
        import_module(module)
    except ImportError as error:
        raise EnvError(f"env={name!r} needs a package that is not installed ({error}). Fix: {fix}") from error
    return ModuleSource(name, module)


def _env_modules(package: str) -> list[str]:
    """Returns the versioned modules of a package (`simple_spread_v3`) without importing them; none if it is missing."""
    try:
        path = importlib.import_module(package).__path__
    except ImportError:
        return []
    return [module.name for module in pkgutil.iter_modules(path) if re.search(r"_v\d+$", module.name)]


def _newest(name: str, modules: list[str]) -> str | None:
    """Returns `name` itself or, where it has no version, the module with its newest version."""
    if name in modules:
        return name
    versions = [m for m in modules if m.rpartition("_v")[0] == name]
    return max(versions, key=lambda m: int(m.rpartition("_v")[2]), default=None)


def _known_names() -> Iterator[str]:
    # Ray moves its names from the one to the other when it is initialized.
    for category, name in (*_global_registry._to_flush, *_global_registry._registered):
        if category == ENV_CREATOR:
            yield name
    for scenario in _env_modules("mpe2"):
        yield from (scenario.rpartition("_v")[0], scenario)
    for family in PETTINGZOO_FAMILIES:
        yield from (f"{family}/{module}" for module in _env_modules(f"pettingzoo.{family}"))
    yield from gym.registry


def _unknown(name: str) -> EnvError:
    scenarios = ", ".join(_env_modules("mpe2")) or "none, as mpe2 is not installed: pip install mpe2"
    return EnvError(
        f"env={name!r} is not known.{did_you_mean(name, set(_known_names()))} Allowed are: a name registered by "
        f"ray.tune.register_env; an mpe2 scenario, with or without its version ({scenarios}); a PettingZoo id "
        f"'family/module' such as 'sisl/multiwalker_v9' (families: {', '.join(PETTINGZOO_FAMILIES)}); a Gymnasium id "
        "such as 'Pendulum-v1'; or 'package.module:callable' or 'package.module:gymnasium-id'."
    )
