"""Reads what a checkpoint says of itself, and refuses one that is missing, incomplete or damaged."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_LEARNER_GROUP, COMPONENT_RL_MODULE

METADATA_FILE = Algorithm.METADATA_FILE_NAME
# Sizes of all files of a checkpoint, by which a damaged one is told without reading it.
SIZES_FILE = "file_sizes.json"
# Keys of an algorithm checkpoint's metadata.
LAYOUT = "layout"
FOLDERS = "folders"


def module_folders(modules: Iterable[str]) -> list[str]:
    """Folders of the modules' networks within a checkpoint."""
    return [f"{COMPONENT_LEARNER_GROUP}/{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}/{m}" for m in modules]


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Metadata of the algorithm checkpoint in a local folder.

    Raises:
        ValueError: If there is no checkpoint, its metadata cannot be read, or a folder is missing that it should have. RLlib
            itself passes over missing folders and would go on with fresh networks.
    """
    file = Path(path) / METADATA_FILE
    if not file.is_file():
        raise ValueError(
            f"{path} is no checkpoint: it has no {file.name}. Give the folder that `save_to_path()` or the trial's "
            "`checkpoint_...` folder names."
        )
    try:
        metadata = json.loads(file.read_text())
    except ValueError as error:
        raise damaged(path, error) from error
    for folder in metadata.get(FOLDERS, ()):
        if not (Path(path) / folder).is_dir():
            raise damaged(path, f"the folder {folder} is missing")
    return metadata


def damaged(path: Any, error: Exception | str) -> ValueError:
    """The error for a checkpoint that cannot be used."""
    reason = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return ValueError(f"Checkpoint {path} is damaged or incomplete ({reason}). Use an earlier checkpoint of the run.")


def write_sizes(checkpoint: Path) -> None:
    """Writes down the sizes of all files of a finished checkpoint."""
    files = sorted(f for f in checkpoint.rglob("*") if f.is_file() and f.name != SIZES_FILE)
    sizes = {f.relative_to(checkpoint).as_posix(): f.stat().st_size for f in files}
    (checkpoint / SIZES_FILE).write_text(json.dumps(sizes))


def is_whole(checkpoint: Path, if_unknown: bool = True) -> bool:
    """Whether all files have the sizes they had when the checkpoint was made; `if_unknown` where those are not known."""
    try:
        sizes = json.loads((checkpoint / SIZES_FILE).read_text())
    except FileNotFoundError:  # saved by `algo.save_to_path()` itself, or not copied to its end
        return if_unknown and (checkpoint / METADATA_FILE).is_file()
    except ValueError:
        return False
    return all((checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size for name, size in sizes.items())
