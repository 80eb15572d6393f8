"""Tune's loggers, with result files that lose nothing when a trial goes on after a pause."""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback


class _KeepsItsRows:
    """For a logger: what it has written itself it does not take from storage.

    Tune's loggers do, each time that a trial goes on (`LoggerCallback._restore_from_remote`). There lies what the last snapshot
    has copied, without the results since; and a snapshot that is being written right then leaves an empty or a torn file. A
    trial that another driver has begun is restored as ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._begun: set[str] = set()

    def _restore_from_remote(self, file_name: str, trial: Trial) -> None:
        if trial.trial_id not in self._begun:
            super()._restore_from_remote(file_name, trial)

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        super().log_trial_result(iteration, trial, result)
        self._begun.add(trial.trial_id)


class ResultJson(_KeepsItsRows, JsonLoggerCallback):
    """`result.json` of each trial."""


class ProgressCsv(_KeepsItsRows, CSVLoggerCallback):
    """`progress.csv` of each trial."""
