"""Which module ids can be names of folders: RLlib keeps the networks of each module in a folder of that name."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Mapping
from typing import Any

from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.utils.metrics import ALL_MODULES

MAX_BYTES = 128
# RLlib writes these beside the modules' folders.
_FILES = {
    RLModule.METADATA_FILE_NAME,
    RLModule.CLASS_AND_CTOR_ARGS_FILE_NAME,
    f"{RLModule.STATE_FILE_NAME}.pkl",
    f"{RLModule.STATE_FILE_NAME}.msgpack",
}


def check_module_ids(module_of: Mapping[Any, Any]) -> None:
    """Refuses module ids that would mix up files, or leave a checkpoint's folder.

    Args:
        module_of: The module of each agent.

    Raises:
        ValueError: Naming the id, what is wrong with it, and an agent of the module.
    """
    known: dict[str, str] = {}
    for agent, module in module_of.items():
        reason = _reason(module)
        if not reason:
            first = known.setdefault(_folded(module), module)
            reason = f"differs from {first!r} in case only" if first != module else ""
        if reason:
            raise ValueError(
                f"Module id {_short(module)} (of agent {_short(agent)}) is not allowed: it {reason}. Checkpoints have a "
                "folder of that name. Name the module otherwise: "
                f"`.multi_agent(policy_mapping_fn={{{_short(agent)}: 'another_name', ...}})`, with an entry for each agent."
            )


def _folded(module: str) -> str:
    """What the file system goes by: those of Mac and Windows tell neither case nor ways to write an accent apart."""
    return unicodedata.normalize("NFC", module).casefold() if sys.platform in ("darwin", "win32") else module


def _reason(module: Any) -> str:
    """Why it cannot be a folder's name; "" if it can."""
    if not isinstance(module, str):
        return f"is of type {type(module).__name__} and not a string"
    if not module or module != module.strip() or module in (".", ".."):
        return "is empty, a dot, or begins or ends with a space"
    if any(sign in "/\\" or unicodedata.category(sign) in ("Cc", "Cs") for sign in module):
        return "has a slash, a backslash or a control character"
    if len(module.encode()) > MAX_BYTES:
        return f"has more than {MAX_BYTES} bytes"
    if module.casefold() in _FILES or module == ALL_MODULES:
        return "is a name that RLlib uses itself"
    return ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}...{text[-5:]}"
