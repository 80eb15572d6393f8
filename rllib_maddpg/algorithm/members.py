"""The members of the family by name, wherever a run is described: command line, `config.yaml`, sweeps."""

from __future__ import annotations

import sys
from typing import Any

from rllib_maddpg.algorithm.maddpg import MADDPG
from rllib_maddpg.algorithm.presets import IDDPG, MATD3, InferredMADDPG
from rllib_maddpg.config.config_file import ALGORITHM, DEFAULT_ALGORITHM
from rllib_maddpg.config.maddpg_config import MADDPGConfig
from rllib_maddpg.config.require import shown
from rllib_maddpg.envs.errors import did_you_mean
from rllib_maddpg.replay.class_path import load_class

MEMBERS: dict[str, type[MADDPG]] = {cls.__name__: cls for cls in (MADDPG, MATD3, IDDPG, InferredMADDPG)}


def algorithm_class(name: Any) -> type[MADDPG]:
    """The algorithm of a name: one of `MEMBERS`, or the path of a subclass of `MADDPG`.

    Args:
        name: Such as "MATD3", "package.module:Class" or "package.module.Class". None: `MADDPG`.

    Raises:
        ValueError: If there is no such algorithm, naming those that there are.
    """
    name = DEFAULT_ALGORITHM if name is None else name
    if isinstance(name, str) and name in MEMBERS:
        return MEMBERS[name]
    what = f"`{ALGORITHM}`={shown(name)} is not allowed"
    if not isinstance(name, str) or not any(mark in name for mark in ".:"):
        hint = did_you_mean(name, MEMBERS) or did_you_mean(name.upper(), MEMBERS) if isinstance(name, str) else ""
        allowed = f"one of {list(MEMBERS)}, or the path of your subclass of MADDPG, such as 'package.module:Class'"
        raise ValueError(f"{what}: it must be {allowed}.{hint}")
    try:
        cls = load_class(name.replace(":", "."))
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, MADDPG)):
        raise ValueError(f"{what}: it names {shown(cls)}, and must name a subclass of rllib_maddpg.MADDPG.")
    return cls


def algorithm_name(cls: type[MADDPG]) -> str | None:
    """The name by which `algorithm_class` finds a class; None: it has none, such as a class of a script or of a function."""
    if MEMBERS.get(cls.__name__) is cls:
        return cls.__name__
    found = getattr(sys.modules.get(cls.__module__), cls.__name__, None)
    return f"{cls.__module__}:{cls.__name__}" if found is cls and cls.__module__ != "__main__" else None


def shown_name(cls: type[MADDPG]) -> str:
    """The name, for people."""
    return algorithm_name(cls) or cls.__qualname__


def new_config(name: Any) -> MADDPGConfig:
    """A config with the defaults of the algorithm of a name, which it builds; errors as in `algorithm_class`."""
    cls = algorithm_class(name)
    config = cls.get_default_config()
    # A subclass need not bring a config.
    config.algo_class = cls
    return config
