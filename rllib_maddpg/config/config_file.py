"""`config.yaml`: the settings of a run as a person wants to read them, and as `read_config` makes a config of them again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rllib_maddpg.config.agent_mapping import AgentMapping
from rllib_maddpg.config.maddpg_config import MADDPGConfig
from rllib_maddpg.config.text_settings import apply_settings
from rllib_maddpg.config.yaml_file import YamlFile

CONFIG_FILE = "config.yaml"
# The key by which files name the algorithm, which is no setting of the config that it makes; and which is meant without it.
ALGORITHM, DEFAULT_ALGORITHM = "algorithm", "MADDPG"
# What follows from other settings, RLlib's inner names of settings above, and what the algorithm's name says.
_DERIVED = {"policies", "simple_optimizer", "train_batch_size", "algo_class"}
_END = "...\n"
_HEAD = """\
# Algorithm and settings of this run: the main ones, then all others that differ from the defaults, MADDPG's or the
# algorithm's own (params.json has every setting).
# Python: rllib_maddpg.config.config_file.read_config("{name}") makes a config of it.
"""


def write_config(config: MADDPGConfig, file: str | Path, algorithm: type | None = None) -> None:
    """Writes a checked config; settings that YAML cannot hold, such as classes and functions, become comments.

    Args:
        config: The config.
        file: The file.
        algorithm: Which `MADDPG` it is for; None: its `algo_class`.
    """
    from rllib_maddpg.algorithm.members import algorithm_name

    defaults = [type(config)(), MADDPGConfig()]
    cls = algorithm or config.algo_class
    main = {key: _value(config, key) for key in _main_keys(config)}
    # The keys of a fresh config: a loaded one has an entry for its class, too.
    keys = sorted(key for key in vars(defaults[0]) if not key.startswith("_") and key not in {*main, *_DERIVED})
    others = {key: _value(config, key) for key in keys if _differs(config, key, defaults)}
    text = _HEAD.format(name=Path(file).name) + _yaml({ALGORITHM: algorithm_name(cls) or cls}) + _yaml(main)
    if others:
        text += "\n# Others that differ from the defaults\n" + _yaml(others)
    Path(file).write_text(text)


def _main_keys(config: MADDPGConfig) -> list[str]:
    """Written in any case, in this order; all others only where they differ from the defaults."""
    return ["env", "env_config", *(key for key, setting in config.table().items() if setting.main), "model_config"]


def _differs(config: MADDPGConfig, key: str, defaults: list[MADDPGConfig]) -> bool:
    return any(_value(config, key) != _value(default, key) for default in defaults if hasattr(default, key))


def read_config(file: str | Path, config_class: type[MADDPGConfig] | None = None) -> MADDPGConfig:
    """A config with the settings of a file that `write_config` wrote, or a person with the same keys.

    Args:
        file: The file.
        config_class: Of the config. None: that of the file's algorithm, which is MADDPG where the file names none.

    Raises:
        ValueError: If the file cannot be read, or names an unknown setting or algorithm, with file, line and key; or if its
            algorithm has a config of another class.
    """
    yaml_file = YamlFile(file)
    config = None if config_class is None else config_class()
    settings = dict(yaml_file.data)
    try:
        if config is None or ALGORITHM in settings:
            config = _of_algorithm(settings.pop(ALGORITHM, None), config)
    except ValueError as error:
        raise yaml_file.error((ALGORITHM,), str(error)) from error
    for key, value in settings.items():
        try:
            apply_settings(config, {key: value})
        except ValueError as error:
            raise yaml_file.error((str(key),), str(error)) from error
    return config


def _of_algorithm(name: Any, given: MADDPGConfig | None) -> MADDPGConfig:
    """The algorithm's config, or the one given, for that algorithm."""
    from rllib_maddpg.algorithm.members import new_config

    own = new_config(name)
    if given is None:
        return own
    if not isinstance(given, type(own)):
        names = type(own).__name__, type(given).__name__
        raise ValueError(f"the config of {name} is {names[0]}, not {names[1]}. Leave `config_class` out.")
    given.algo_class = own.algo_class
    return given


def _value(config: MADDPGConfig, key: str) -> Any:
    value = getattr(config, key)
    if key == "policy_mapping_fn" and isinstance(value, AgentMapping):
        return value.module_of
    return value


def _yaml(settings: Mapping[str, Any]) -> str:
    text = ""
    for key, value in settings.items():
        plain = _plain(value)
        if _is_plain(plain):
            # One line each: schedules and layer sizes are read at a glance.
            line = yaml.safe_dump(plain, sort_keys=False, default_flow_style=True, width=math.inf)
            text += f"{key}: {line.removesuffix(_END).strip()}\n"  # a lone scalar ends a document
        else:
            text += f"# {key}: {' '.join(repr(value).split())} (no plain value; set it in Python)\n"
    return text


def _is_plain(value: Any) -> bool:
    """Whether it is made of what YAML has. PyYAML is not asked: other packages teach it to write more, but not to read it."""
    if isinstance(value, dict):
        return all(map(_is_plain, [*value.keys(), *value.values()]))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _plain(value: Any) -> Any:
    """The value with Python's own types, where it has equals there."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
