"""The folder of a training run: its `run.json` and its checkpoints, of which a crash never leaves a half one."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from rllib_maddpg.algorithm.checkpoint_files import EVERYTHING, METADATA_FILE, CheckpointFiles, newest_whole
from rllib_maddpg.algorithm.tunable import BEFORE_ERROR
from rllib_maddpg.results.folder_lock import LOCK_FILE, is_empty, locked, remove_if_empty
from rllib_maddpg.results.output_paths import make_folder, why_not_written
from rllib_maddpg.results.tune_folder import newest_in_trial
from rllib_maddpg.results.whole_file import replace_json

RUN_FILE = "run.json"
CHECKPOINTS = "checkpoints"
BEST_CHECKPOINT = "best_checkpoint"  # in the folder of a sweep
_UNFINISHED = ".unfinished-"


class RunFolder:
    """One run's folder.

    ```
    results/simple_adversary_s0_2026-01-31_12-00-00/
        run.json  config.yaml  params.json  progress.csv  result.json  events.out.tfevents...  learning_curve.png
        checkpoints/000020000/  checkpoints/000040000/      <- named by env steps
    ```
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).resolve()

    # ------------------------------------------------------------------------------------------ the folder

    @classmethod
    @contextlib.contextmanager
    def new(cls, out: str | None, env: str, seed: int | None) -> Iterator[RunFolder]:
        """A new folder for a run, locked until the end, and then gone again if it was made here and nothing written into it.

        Raises:
            ValueError: If `out` is a URI or a file, holds something already, cannot be written to, or another run uses it.
        """
        made = out is None or not os.path.lexists(out)
        path = make_folder("--out", out) if out is not None else _new_folder(env, seed)

        def check() -> None:
            if not is_empty(path):
                raise ValueError(
                    f"--out {out} exists and is not an empty folder. Name another one, or continue the run in it with "
                    f"`--resume {out}`."
                )

        if not os.path.lexists(path / LOCK_FILE):  # else the one who holds it comes first
            check()
        with locked(path, check):
            try:
                yield cls(path)
            finally:
                if made:
                    remove_if_empty(path)

    def create(self, env_steps: int) -> None:
        """Makes the folder ready for a run that goes on from `env_steps`; renames newer (damaged) checkpoints."""
        checkpoints = self.path / CHECKPOINTS
        checkpoints.mkdir(parents=True, exist_ok=True)
        for left in checkpoints.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left, ignore_errors=True)
        for damaged in self.checkpoints():
            if int(damaged.name) > env_steps:
                damaged.rename(checkpoints / f"damaged-{damaged.name}-{time.time_ns()}")

    def read_info(self) -> dict[str, Any]:
        """The content of `run.json`.

        Raises:
            ValueError: If it cannot be read.
        """
        file = self.path / RUN_FILE
        try:
            return json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{file} cannot be read ({error}). Resume one of the run's checkpoint folders with --out."
            ) from error

    def write_info(self, info: dict[str, Any]) -> None:
        """Replaces `run.json`."""
        replace_json(self.path / RUN_FILE, info)

    # ------------------------------------------------------------------------------------------ checkpoints

    def checkpoints(self) -> list[Path]:
        """All finished checkpoints, oldest first; a damaged one may be among them."""
        folder = self.path / CHECKPOINTS
        found = [p for p in folder.iterdir() if p.is_dir() and p.name.isdigit()] if folder.is_dir() else []
        return sorted(found, key=lambda p: int(p.name))

    def newest_checkpoint(self, parts: Collection[str] = EVERYTHING) -> Path:
        """The newest checkpoint of which these parts are whole.

        Raises:
            ValueError: If there is none.
        """
        checkpoints = self.checkpoints()
        if newest := newest_whole(checkpoints, parts):
            return newest
        found = f"all {len(checkpoints)} in it are damaged" if checkpoints else "there is none in it"
        raise ValueError(f"{self.path} has no checkpoint to go on from: {found}.")

    def save_checkpoint(self, algo: Any, env_steps: int, keep: int) -> Path:
        """Saves `algo` as `checkpoints/<env_steps>` and removes all but the newest `keep` checkpoints.

        Written beside its place and then renamed, so that a folder with a checkpoint's name is always a finished one.

        Raises:
            ValueError: If it cannot be written, such as on a full disk; the earlier checkpoints are as they were.
        """
        folder = self.path / CHECKPOINTS
        unfinished, path = folder / f"{_UNFINISHED}{env_steps:09d}", folder / f"{env_steps:09d}"
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            algo.save_to_path(str(unfinished))
            shutil.rmtree(path, ignore_errors=True)
            unfinished.rename(path)
        except OSError as error:
            raise ValueError(f"Checkpoint {path} cannot be written: {why_not_written(error)}.") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        for old in self.checkpoints()[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
        return path

    def save_before_error(self, algo: Any) -> Path:
        """Saves what a run had that failed before its first env step was counted; errors as in `save_checkpoint`."""
        path = self.path / BEFORE_ERROR
        shutil.rmtree(path, ignore_errors=True)
        try:
            algo.save_to_path(str(path))
        except OSError as error:
            shutil.rmtree(path, ignore_errors=True)
            raise ValueError(f"Checkpoint {path} cannot be written: {why_not_written(error)}.") from error
        return path


def find_checkpoint(path: str | Path, parts: Collection[str] = EVERYTHING) -> tuple[Path, RunFolder | None]:
    """The checkpoint meant by a run folder, a Tune trial's folder (each: its newest whole one), a sweep's folder (the best one)
    or a checkpoint folder; and its run, if it has one.

    Args:
        path: The folder.
        parts: Files and folders of the checkpoint that must be whole.

    Raises:
        ValueError: If there is no such folder, no checkpoint in it, several trials, or the checkpoint is damaged.
    """
    path = Path(path).resolve()
    if not path.is_dir():
        raise ValueError(f"{path} is no folder. Give a run folder, a Tune trial's folder or a checkpoint folder.")
    if (path / RUN_FILE).is_file() or (path / CHECKPOINTS).is_dir():
        run = RunFolder(path)
        return run.newest_checkpoint(parts), run
    if (path / BEST_CHECKPOINT / METADATA_FILE).is_file():
        return path / BEST_CHECKPOINT, None
    if not (path / METADATA_FILE).is_file():
        return newest_in_trial(path, parts), None
    CheckpointFiles(path).check(parts)
    return path, run_at(path)


def run_at(path: str | Path) -> RunFolder | None:
    """The run that a run folder, or one of its checkpoint folders, is of; None: it is another folder."""
    path = Path(path).resolve()
    if (path / RUN_FILE).is_file() or (path / CHECKPOINTS).is_dir():
        return RunFolder(path)
    is_in_run = path.parent.name == CHECKPOINTS and (path.parent.parent / RUN_FILE).is_file()
    return RunFolder(path.parent.parent) if is_in_run else None


def _new_folder(env: str, seed: int | None) -> Path:
    """Makes a folder in `results`; two runs that start in the same second get two."""
    name = f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', env).strip('-.')[:100]}_s{seed}_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    parent = make_folder("--out", "results")
    for n in itertools.count(1):
        path = parent / (name if n == 1 else f"{name}_{n}")
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path
    raise AssertionError


def short_path(path: Path) -> str:
    """The path as seen from here, where that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)
