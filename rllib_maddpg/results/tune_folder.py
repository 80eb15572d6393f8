"""What Tune leaves on the disk: an experiment's folder with a folder for each trial, in which its checkpoints lie."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path

from rllib_maddpg.algorithm.checkpoint_files import EVERYTHING, METADATA_FILE, newest_whole

# As Ray names them: `checkpoint_000000`, ...
_CHECKPOINT = re.compile(r"checkpoint_\d{6,}")
# As many names as an error shows.
_SHOWN = 20


def checkpoints_in_trial(trial: Path) -> list[Path]:
    """A trial's checkpoints, oldest first; one that was not written to its end may be among them."""
    found = [p for p in trial.iterdir() if p.is_dir() and _CHECKPOINT.fullmatch(p.name)] if trial.is_dir() else []
    return sorted(found, key=lambda p: int(p.name.rpartition("_")[2]))


def trials_in(experiment: Path) -> list[Path]:
    """The trials of an experiment that have checkpoints."""
    return sorted(p for p in experiment.iterdir() if p.is_dir() and checkpoints_in_trial(p))


def trainable_of(trial: Path) -> str | None:
    """The name of what Tune trained in a trial's folder, such as "MATD3"; None: its experiment does not say."""
    for state in sorted(trial.parent.glob("experiment_state-*.json"), reverse=True):
        try:
            # All trials of an experiment have the same one.
            return str(json.loads(json.loads(state.read_text())["trial_data"][0][0])["trainable_name"])
        except (OSError, ValueError, LookupError, TypeError):  # cut short, or of another Ray
            continue
    return None


def newest_in_trial(path: Path, parts: Collection[str] = EVERYTHING) -> Path:
    """The newest checkpoint of a trial of which these parts are known to be whole; see `is_whole`.

    Raises:
        ValueError: If the folder is that of an experiment, whose trials are named then, or has no whole checkpoint.
    """
    checkpoints = checkpoints_in_trial(path)
    if newest := newest_whole(checkpoints, parts, must_be_listed=True):
        return newest
    if checkpoints:
        raise ValueError(f"Trial {path} has no checkpoint to go on from: all {len(checkpoints)} in it are damaged.")
    trials = [trial.name for trial in trials_in(path)]
    if trials:
        more = f" and {len(trials) - _SHOWN} more" if len(trials) > _SHOWN else ""
        raise ValueError(
            f"{path} is an experiment of several trials. Name one of them: {path}/TRIAL, where TRIAL is one of "
            f"{', '.join(trials[:_SHOWN])}{more}."
        )
    raise ValueError(
        f"{path} is neither a run folder (with checkpoints/), nor a Tune trial's folder (with checkpoint_000000/ or later "
        f"ones), nor a checkpoint folder (with {METADATA_FILE})."
    )
