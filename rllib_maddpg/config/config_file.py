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
# What follows from other settings, and RLlib's inner names of settings above.
_DERIVED = {"policies", "simple_optimizer", "train_batch_size"}
_END = "...\n"
_HEAD = """\
# Settings of this run: the main ones, then all others that differ from their defaults (params.json has every setting).
# Python: rllib_maddpg.config.config_file.read_config("{name}") makes a MADDPGConfig of it.
"""


def write_config(config: MADDPGConfig, file: str | Path) -> None:
    """Writes a checked config; settings that YAML cannot hold, such as classes and functions, become comments."""
    default = type(config)()
    main = {key: _value(config, key) for key in _main_keys(config)}
    # The keys of a fresh config: a loaded one has an entry for its class, too.
    keys = sorted(key for key in vars(default) if not key.startswith("_") and key not in {*main, *_DERIVED})
    others = {key: _value(config, key) for key in keys if _value(config, key) != _value(default, key)}
    text = _HEAD.format(name=Path(file).name) + _yaml(main)
    if others:
        text += "\n# Others that differ from the defaults\n" + _yaml(others)
    Path(file).write_text(text)


def _main_keys(config: MADDPGConfig) -> list[str]:
    """Written in any case, in this order; all others only where they differ from the defaults."""
    return ["env", "env_config", *(key for key, setting in config.table().items() if setting.main), "model_config"]


def read_config(file: str | Path, config_class: type[MADDPGConfig] = MADDPGConfig) -> MADDPGConfig:
    """A config with the settings of a file that `write_config` wrote, or a person with the same keys.

    Args:
        file: The file.
        config_class: Of the config; `MADDPGConfig` or a subclass that has the same settings.

    Raises:
        ValueError: If the file cannot be read, or names an unknown setting, with file, line and key.
    """
    yaml_file = YamlFile(file)
    config = config_class()
    for key, value in yaml_file.data.items():
        try:
            apply_settings(config, {key: value})
        except ValueError as error:
            raise yaml_file.error((str(key),), str(error)) from error
    return config


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
