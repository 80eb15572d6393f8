"""The result files of a run, in the formats of RLlib and Tune; a resumed run appends to them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ray.air._internal.json import SafeFallbackEncoder
from ray.tune.utils import flatten_dict

from rllib_maddpg.results.event_file import EventFile
from rllib_maddpg.results.output_paths import why_not_written
from rllib_maddpg.results.progress import ENV_STEPS
from rllib_maddpg.results.whole_file import replace_text

CSV_FILE, JSON_FILE, PARAMS_FILE, PARAMS_PICKLE = "progress.csv", "result.json", "params.json", "params.pkl"


class ResultFiles:
    """Writes each training result to `progress.csv`, `result.json` and TensorBoard events in one folder.

    Ray's own writers need a Tune trial. Its CSV writer also fixes the columns by the first row, in which the metrics of
    the learners are still missing, and does not read the header of a file that it goes on with.

    `result.json` has a line for each result, without the config (`params.json` and `config.yaml` have it) and with null for
    what is no finite number.
    """

    def __init__(self, folder: Path, env_steps: int = 0):
        """Drops what is written beyond `env_steps`, from where the run goes on: it is going to be written again.

        Raises:
            ValueError: If the files cannot be written.
        """
        self._csv, self._json = folder / CSV_FILE, folder / JSON_FILE
        with _naming(self._json):
            _rewrite(self._json, lambda text: _lines_until(text, env_steps))
        with _naming(self._csv):
            _rewrite(self._csv, lambda text: _rows_until(text, env_steps))
            self._columns: list[str] = []
            if self._csv.is_file():
                with self._csv.open(newline="") as f:
                    self._columns = next(csv.reader(f), [])
        self._events = EventFile(folder, purge_step=env_steps + 1)

    def write(self, result: Mapping[str, Any], env_steps: int) -> None:
        """Appends one result; `env_steps` is its place on TensorBoard's axis.

        Raises:
            ValueError: If it cannot be written, such as on a full disk.
        """
        row = {key: value for key, value in result.items() if key != "config"}
        with _naming(self._json), self._json.open("a") as f:
            f.write(to_json(row) + "\n")
        flat = flatten_dict(row, delimiter="/")
        with _naming(self._csv):
            self._write_row(flat)
        scalars = {f"ray/tune/{name}": float(value) for name, value in flat.items() if _is_finite(value)}
        self._events.add(scalars, env_steps)

    def _write_row(self, row: Mapping[str, Any]) -> None:
        new = [column for column in row if column not in self._columns]
        if new:
            old_rows = read_progress(self._csv.parent)
            self._columns += new
            replace_text(self._csv, _table(self._columns, old_rows))
        with self._csv.open("a", newline="") as f:
            csv.DictWriter(f, self._columns, restval="").writerow(row)

    def close(self) -> None:
        """Closes the TensorBoard events."""
        self._events.close()


def to_json(result: Mapping[str, Any]) -> str:
    """A result as one line of JSON: null for NaN and infinity, which JSON does not have."""
    return json.dumps(_without_nan(result), cls=SafeFallbackEncoder, allow_nan=False)


def write_params(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes the settings to `params.json` and, where they can be pickled, `params.pkl`."""
    (folder / PARAMS_FILE).write_text(json.dumps(config, indent=2, sort_keys=True, cls=SafeFallbackEncoder) + "\n")
    try:
        from ray import cloudpickle

        (folder / PARAMS_PICKLE).write_bytes(cloudpickle.dumps(dict(config)))
    except (pickle.PicklingError, TypeError):  # a setting of the user's own; nothing here reads this file
        (folder / PARAMS_PICKLE).unlink(missing_ok=True)


def json_rows(file: Path) -> Iterator[dict[str, Any]]:
    """The results in a `result.json`, line by line; none if there is no such file."""
    if not file.is_file():
        return
    with file.open() as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:  # a line that a killed process has not finished
                continue
            if isinstance(row, dict):
                yield row


def read_progress(folder: Path) -> list[dict[str, str]]:
    """The rows of `progress.csv`, column -> text; an empty list if there is no such file."""
    file = folder / CSV_FILE
    if not file.is_file():
        return []
    with file.open(newline="") as f:
        return list(csv.DictReader(f))


def rows_until(rows: Iterable[Mapping[str, str]], env_steps: int) -> list[Mapping[str, str]]:
    """The rows of `progress.csv` that were made in the first so many env steps."""
    kept = []
    for row in rows:
        try:
            beyond = float(row.get(ENV_STEPS) or 0) > env_steps
        except ValueError:  # not written by us: not ours to drop
            beyond = False
        if not beyond:
            kept.append(row)
    return kept


# ------------------------------------------------------------------------------------------ going on after a kill


def _rewrite(file: Path, keep: Callable[[str], str]) -> None:
    """Replaces the file by what is to be kept of it, without a last line that a killed process has not finished."""
    if not file.is_file():
        return
    with file.open(newline="") as f:
        text = f.read()
    kept = keep(text[: text.rfind("\n") + 1])
    if kept != text:
        replace_text(file, kept)


def _lines_until(text: str, env_steps: int) -> str:
    def is_kept(line: str) -> bool:
        try:
            return not json.loads(line).get(ENV_STEPS, 0) > env_steps
        except (ValueError, AttributeError, TypeError):  # not written by us: not ours to drop
            return True

    return "".join(line for line in text.splitlines(keepends=True) if is_kept(line))


def _rows_until(text: str, env_steps: int) -> str:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    rows = list(reader)
    kept = rows_until(rows, env_steps)
    return text if len(kept) == len(rows) else _table(reader.fieldnames or [], kept)


def _table(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(columns), restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


# ------------------------------------------------------------------------------------------ values and errors


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _without_nan(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and bool(np.isfinite(value))


@contextlib.contextmanager
def _naming(file: Path):
    """Turns an error of the operating system into one that says which file, and whether the disk is full."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{file} cannot be written: {why_not_written(error)}.") from error
