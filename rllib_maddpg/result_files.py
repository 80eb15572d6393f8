"""The result files of a run, in the formats of RLlib and Tune; a resumed run appends to them."""

from __future__ import annotations

import csv
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ray.air._internal.json import SafeFallbackEncoder
from ray.tune.utils import flatten_dict
from tensorboardX import SummaryWriter

CSV_FILE, JSON_FILE, PARAMS_FILE, PARAMS_PICKLE = "progress.csv", "result.json", "params.json", "params.pkl"


class ResultFiles:
    """Writes each training result to `progress.csv`, `result.json` and TensorBoard events in one folder.

    Ray's own writers need a Tune trial. Its CSV writer also fixes the columns by the first row, in which the metrics of
    the learners are still missing, and does not read the header of a file that it goes on with.
    """

    def __init__(self, folder: Path):
        self._csv, self._json = folder / CSV_FILE, folder / JSON_FILE
        for file in (self._csv, self._json):
            _drop_half_line(file)
        self._columns: list[str] = []
        if self._csv.is_file():
            with self._csv.open(newline="") as f:
                self._columns = next(csv.reader(f), [])
        self._events = SummaryWriter(str(folder), flush_secs=30)

    def write(self, result: Mapping[str, Any], env_steps: int) -> None:
        """Appends one result; `env_steps` is its place on TensorBoard's axis."""
        with self._json.open("a") as f:
            f.write(json.dumps(result, cls=SafeFallbackEncoder) + "\n")
        flat = flatten_dict({key: value for key, value in result.items() if key != "config"}, delimiter="/")
        self._write_row(flat)
        for name, value in flat.items():
            if isinstance(value, (int, float, np.number)) and np.isfinite(value):
                self._events.add_scalar(f"ray/tune/{name}", value, global_step=env_steps)
        self._events.flush()

    def _write_row(self, row: Mapping[str, Any]) -> None:
        new = [column for column in row if column not in self._columns]
        if new:
            old_rows = read_progress(self._csv.parent)
            self._columns += new
            whole = self._csv.with_name(f".{CSV_FILE}")
            with whole.open("w", newline="") as f:
                writer = csv.DictWriter(f, self._columns, restval="")
                writer.writeheader()
                writer.writerows(old_rows)
            os.replace(whole, self._csv)
        with self._csv.open("a", newline="") as f:
            csv.DictWriter(f, self._columns, restval="").writerow(row)

    def close(self) -> None:
        """Closes the TensorBoard events."""
        self._events.close()


def write_params(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes the settings to `params.json` and, where they can be pickled, `params.pkl`."""
    (folder / PARAMS_FILE).write_text(json.dumps(config, indent=2, sort_keys=True, cls=SafeFallbackEncoder) + "\n")
    try:
        from ray import cloudpickle

        (folder / PARAMS_PICKLE).write_bytes(cloudpickle.dumps(dict(config)))
    except (pickle.PicklingError, TypeError):  # a setting of the user's own; nothing here reads this file
        (folder / PARAMS_PICKLE).unlink(missing_ok=True)


def read_progress(folder: Path) -> list[dict[str, str]]:
    """The rows of `progress.csv`, column -> text; an empty list if there is no such file."""
    file = folder / CSV_FILE
    if not file.is_file():
        return []
    with file.open(newline="") as f:
        return list(csv.DictReader(f))


def _drop_half_line(file: Path) -> None:
    """Cuts off a last line that a killed process has not finished."""
    if not file.is_file():
        return
    data = file.read_bytes()
    if not data.endswith(b"\n"):
        with file.open("r+b") as f:
            f.truncate(data.rfind(b"\n") + 1)
