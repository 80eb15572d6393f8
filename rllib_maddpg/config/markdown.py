"""The table of settings as Markdown: `python -m rllib_maddpg.config.markdown README.md` writes it there, between two marks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_maddpg.config.maddpg_config import MADDPGConfig
from rllib_maddpg.config.setting import Setting

START = "<!-- settings: made by `python -m rllib_maddpg.config.markdown README.md` from rllib_maddpg/config/table.py -->\n"
END = "<!-- end of settings -->\n"


def settings_table(cls: type[MADDPGConfig] = MADDPGConfig) -> str:
    """Markdown's rows of all settings of a config class that have a `doc`."""
    rows = [_row(setting) for setting in cls.table().values() if setting.doc]
    return "\n".join(["| key | default | | meaning |", "|---|---|---|---|", *rows, ""])


def _row(setting: Setting) -> str:
    of = "" if setting.method == "training" else f" (of `.{setting.method}(...)`)"
    default = setting.default if setting.has_default else getattr(AlgorithmConfig(), setting.key)
    marks = ["module"] * setting.per_module + ["PBT"] * setting.mutable
    meaning = setting.doc.replace("|", "\\|")
    return f"| `{setting.key}`{of} | `{_shown(default)}` | {', '.join(marks)} | {meaning} |"


def _shown(default: Any) -> str:
    return json.dumps(default) if isinstance(default, (dict, str)) else repr(default)


def with_table(text: str) -> str:
    """The text of a Markdown file with the table of now.

    Raises:
        ValueError: If it has no place for it.
    """
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"There is no place for the table: put these two lines where it belongs.\n{START}{END}")
    return before + start + settings_table() + end + after


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(with_table(Path(name).read_text()))
    if not sys.argv[1:]:
        print(settings_table(), end="")
