"""Tune's snapshots of a sweep: how often, and how those that a killed driver has left are repaired."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from rllib_maddpg.algorithm.checkpoint_files import is_whole
from rllib_maddpg.results.tune_folder import checkpoints_in_trial
from rllib_maddpg.sweeps.schema import Sweep

# Trials, and the searchers' memory.
_STATE, _OTHERS = "experiment_state-*.json", ("basic-variant-state-*", "search_gen_state-*", "searcher-state-*")
_KEPT = ".last_snapshot"


def snapshot_period(sweep: Sweep) -> str:
    """Seconds between snapshots, for `TUNE_GLOBAL_CHECKPOINT_S`.

    Short trials would lose most of their work in Tune's ten seconds; a snapshot copies all result files, which is too much to
    be done each second with long ones.
    """
    return "auto" if sweep.env_steps >= 100_000 else f"{max(1.0, sweep.env_steps / 10_000):g}"


class Watch(Callback):
    """Keeps what Tune forgets: a whole copy of its last snapshot, and how trials stood when it was stopped.

    Tune writes over the snapshot, so that a driver killed then leaves half a one; and on SIGINT it marks all trials as
    terminated, also those that have not begun.

    Attributes:
        statuses: Trial id -> Tune's status after its last step.

    Args:
        folder: Of the sweep.
        every: Seconds.
    """

    def __init__(self, folder: Path, every: float = 10.0):
        self._folder, self._every = folder, every
        self._last = 0.0
        self.statuses: dict[str, str] = {}

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Called by Tune very often."""
        self.statuses = {trial.trial_id: trial.status for trial in trials}
        if time.monotonic() - self._last < self._every:
            return
        self._last = time.monotonic()
        keep_snapshot(self._folder)


def keep_snapshot(folder: Path) -> None:
    """Copies the newest snapshot, if it is whole."""
    state = newest_state(folder)
    if state is None or not _is_json(state):
        return
    kept = folder / _KEPT
    kept.mkdir(exist_ok=True)
    # A name has the time at which its driver began; what an earlier driver has left is of no use any more.
    for old in kept.iterdir():
        if not (folder / old.name).is_file():
            old.unlink()
    for file in [state, *(file for pattern in _OTHERS for file in folder.glob(pattern))]:
        part = kept / f".{file.name}"
        shutil.copyfile(file, part)
        os.replace(part, kept / file.name)


def repair_snapshot(folder: Path) -> None:
    """Puts the last whole snapshot in the place of one that was cut short; else Tune would begin from scratch.

    Raises:
        ValueError: If there is none.
    """
    state = newest_state(folder)
    if state is not None and _is_json(state):
        return
    kept = folder / _KEPT
    if not kept.is_dir() or newest_state(kept) is None:
        what = f"{state.name} was cut short" if state else "Tune has written none"
        fix = "What its trials have left stays there; start the sweep again with another --out."
        raise ValueError(f"--resume: {folder} has no snapshot to go on from: {what}. {fix}")
    if state is not None:
        state.rename(state.with_suffix(".damaged"))
    for file in kept.iterdir():
        shutil.copyfile(file, folder / file.name)


def repair_checkpoints(trials: Iterable[Trial]) -> None:
    """Gives each unfinished trial the checkpoint that its snapshot names.

    Tune removes old checkpoints as new ones come and tells the snapshot a moment later. The newest one takes the place then:
    with it the trial has even less to repeat.
    """
    for trial in trials:
        if trial.status == Trial.TERMINATED or trial.checkpoint is None:
            continue
        named = Path(trial.checkpoint.path)
        if is_whole(named):
            continue
        whole = [checkpoint for checkpoint in checkpoints_in_trial(named.parent) if is_whole(checkpoint)]
        if whole:
            shutil.rmtree(named, ignore_errors=True)
            shutil.copytree(whole[-1], named)


def newest_state(folder: Path) -> Path | None:
    """The file from which Tune would go on."""
    return max(folder.glob(_STATE), key=lambda file: file.name, default=None)


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text())
    except ValueError:
        return False
    return True
