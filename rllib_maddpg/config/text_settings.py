"""Settings given as text (`key=value`), and how they are put on a `MADDPGConfig`."""

from __future__ import annotations

import ast
import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rllib_maddpg.config.checks import unknown_key_message
from rllib_maddpg.config.maddpg_config import MADDPGConfig
from rllib_maddpg.config.require import shown

# Names of long keys where room is short: tables and legends.
SHORT_NAMES = {key: setting.short for key, setting in MADDPGConfig.table().items() if setting.short}
# Items of `model_config` and `env_config`.
SHORT_NAMES |= {"fcnet_hiddens": "hidden", "continuous_actions": "continuous"}
_WORDS_FOR_BOOLEANS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}
# Settings that RLlib keeps under another name, behind a property.
_PROPERTIES = ("model_config", "train_batch_size_per_learner")


def parse_settings(items: Sequence[str], option: str) -> dict[str, Any]:
    """Makes a flat dict of `["tau=0.01", "model_config.fcnet_hiddens=[64,64]"]` or of one JSON object.

    A value is read as JSON, else as a Python literal (`True`, `None`, `.5`), else it stays a string.

    Args:
        items: The words of the command line.
        option: Name of the option, for messages.

    Raises:
        ValueError: If a word has no "=", or if a JSON object cannot be read.
    """
    if len(items) == 1 and items[0].lstrip().startswith("{"):
        try:
            return json.loads(items[0])
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{option} {items[0]!r} is no JSON object: {error}.") from error
    settings = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not (equals and key.strip()):
            raise ValueError(f"{option} {item!r} is not of the form key=value, such as `{option} tau=0.01`.")
        settings[key.strip()] = parse_value(text)
    return settings


def with_booleans(settings: Mapping[str, Any], config_class: type[MADDPGConfig] = MADDPGConfig) -> dict[str, Any]:
    """Settings from a command line, where `yes`, `no`, `on` and `off` mean True and False if the setting is one of these."""
    default = vars(config_class())

    def value_of(key: str, value: Any) -> Any:
        is_word = isinstance(value, str) and isinstance(default.get(key), bool)
        return _WORDS_FOR_BOOLEANS.get(value.strip().lower(), value) if is_word else value

    return {key: value_of(key, value) for key, value in settings.items()}


def parse_value(text: str) -> Any:
    """Reads JSON, else a Python literal, else the string itself."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text


def known_keys(config: MADDPGConfig) -> list[str]:
    """The keys that `apply_settings` takes, without what a dotted key may lead to."""
    return [key for key in vars(config) if not key.startswith("_")] + list(_PROPERTIES)


def apply_settings(config: MADDPGConfig, settings: Mapping[str, Any]) -> None:
    """Sets keys of MADDPG and RLlib on `config`; a dotted key sets an item of a dict and leaves the others as they are.

    Args:
        config: Is changed.
        settings: key -> value, such as `{"tau": 0.01, "model_config.fcnet_hiddens": [64, 64]}`.

    Raises:
        ValueError: If no setting has such a key, or if a dotted key leads into something that is no dict.
    """
    known = known_keys(config)
    for dotted, value in settings.items():
        if not isinstance(dotted, str):
            raise ValueError(f"{shown(dotted)} is no setting of MADDPG: settings have words as keys.")
        key, *path = dotted.split(".")
        if key not in known:
            raise ValueError(unknown_key_message(key, known))
        if path:
            value = _with_item(getattr(config, key), path, value, dotted)
        if key == "model_config":
            if not isinstance(value, Mapping):
                raise ValueError(f"`model_config`={value!r} must be a dict, such as {{'fcnet_hiddens': [64, 64]}}.")
            config.rl_module(model_config=value)
        elif key == "policy_mapping_fn":
            config.multi_agent(policy_mapping_fn=value)
        else:
            config.update_from_dict({key: value})


def _with_item(old: Any, path: Sequence[str], value: Any, dotted: str) -> dict[str, Any]:
    """A copy of the dict `old` with the item at `path` set."""
    if old is not None and not isinstance(old, Mapping):
        depth = len(dotted.split(".")) - len(path)
        raise ValueError(f"`{dotted}` cannot be set: `{'.'.join(dotted.split('.')[:depth])}`={old!r} is no dict.")
    result = copy.copy(dict(old or {}))
    key, *rest = path
    result[key] = _with_item(result.get(key), rest, value, dotted) if rest else value
    return result
