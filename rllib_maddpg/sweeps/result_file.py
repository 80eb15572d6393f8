"""Tune's logger of `result.json`, which loses nothing when a trial goes on after a pause."""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.logger import JsonLoggerCallback

from rllib_maddpg.results.result_files import to_json


class ResultJson(JsonLoggerCallback):
    """Takes from storage only what another driver has written.

    Tune's own does so each time that a trial goes on (`LoggerCallback._restore_from_remote`). There lies what the last snapshot
    has copied, without the results since; and a snapshot that is being written right then leaves an empty or a torn file.
    """

    def __init__(self) -> None:
        super().__init__()
        self._begun: set[str] = set()

    def _restore_from_remote(self, file_name: str, trial: Trial) -> None:
        if trial.trial_id not in self._begun:
            super()._restore_from_remote(file_name, trial)

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        # By hand: Tune's own writes NaN, which is no JSON, and the whole config into each line. `params.json` has the config.
        if trial not in self._trial_files:
            self.log_trial_start(trial)
        file = self._trial_files[trial]
        file.write(to_json({key: value for key, value in result.items() if key != "config"}) + "\n")
        file.flush()
        self._begun.add(trial.trial_id)
