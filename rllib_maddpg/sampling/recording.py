"""Recording: what env runners sample, as Parquet files with a row for each joint row."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from rllib_maddpg.rows.layout import AgentSlot
from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import BUILT_IN, Column, RowSchema, with_next

TRAINING, EVALUATION = "training", "evaluation"
# Under which name the numbers of an agent are recorded. Users' columns keep theirs, so they can have none of these.
_NAMES = {
    "obs": "obs",
    "actions": "action",
    "rewards": "reward",
    "new_obs": "next_obs",
    "terminateds": "terminated",
    "truncateds": "truncated",
    "alive": "alive",
}
EPISODE_ID = "eps_id"
TAKEN = (EPISODE_ID, *_NAMES.values())


def make_folder(output: str | Path) -> tuple[pa.fs.FileSystem, str]:
    """Makes the folder if need be; returns its file system and its path there.

    Args:
        output: A path, or a URI that pyarrow knows (`s3://`, `gs://`, ...).

    Raises:
        OSError, ValueError: If it cannot be made or written to (pyarrow's own errors are these).
    """
    text = str(output)
    filesystem, path = pa.fs.FileSystem.from_uri(text if "://" in text else Path(text).absolute().as_posix())
    filesystem.create_dir(path, recursive=True)
    probe = f"{path}/.{uuid.uuid4().hex}"
    with filesystem.open_output_stream(probe):
        pass
    filesystem.delete_file(probe)
    return filesystem, path


class Recorder:
    """Writes the rows of one env runner to `output/training` or `output/evaluation`.

    Columns: `eps_id`, `t` (env steps since the episode's start), and for each agent `<agent>/obs`, `<agent>/next_obs` (as the
    module saw them), `<agent>/action` (as the env got it), `<agent>/reward`, `<agent>/terminated`, `<agent>/truncated`,
    `<agent>/alive` (whether it is in the game; if not, its other values are zeros, but for `next_obs` when it joins next);
    and other columns: `<name>` or `<agent>/<name>`, such as `<agent>/acts`, `/acted` and `/next_acts` in games of turns.
    """

    def __init__(self, schema: RowSchema, config: Any, worker_index: int):
        self.schema = schema
        self.max_rows: int | None = config.output_max_rows_per_file
        self.write_remaining: bool = config.output_write_remaining_data
        self._filesystem, folder = make_folder(f"{config.output}/{EVALUATION if config.in_evaluation else TRAINING}")
        # A runner that was restarted, or another run, must not write over these files.
        unique = uuid.uuid4().hex[:8]
        self._prefix, self._episodes = f"run-{worker_index:06d}-{unique}", f"{worker_index}-{unique}"
        self._extra = with_next((*schema.extra, *schema.own))[len(BUILT_IN) :]
        self._folder, self._files = folder, 0
        self._waiting: list[pa.Table] = []

    def record(self, rollout: JointRollout) -> None:
        """Takes rows, and writes the files that are full."""
        if not len(rollout):
            return
        self._waiting.append(self._table(rollout))
        rows = sum(table.num_rows for table in self._waiting)
        while rows and rows >= (self.max_rows or 1):
            table = pa.concat_tables(self._waiting)
            self._write(table[: self.max_rows])
            self._waiting = [table[self.max_rows :]] if self.max_rows else []
            rows = sum(table.num_rows for table in self._waiting)

    def close(self) -> None:
        """Writes what is left, if the config's `output_write_remaining_data` wants it."""
        if self.write_remaining and sum(table.num_rows for table in self._waiting):
            self._write(pa.concat_tables(self._waiting))
        self._waiting = []

    def _write(self, table: pa.Table) -> None:
        name = f"{self._prefix}-{self._files:06d}.parquet"
        self._files += 1
        # Readers pass over names with a dot, so they never meet half a file.
        pq.write_table(table, f"{self._folder}/.{name}", filesystem=self._filesystem)
        self._filesystem.move(f"{self._folder}/.{name}", f"{self._folder}/{name}")

    def _table(self, rollout: JointRollout) -> pa.Table:
        columns = rollout.columns
        table: dict[str, Any] = {
            EPISODE_ID: pa.array([f"{self._episodes}-{number}" for number in columns["episodes"][:, 0].tolist()], pa.string()),
            "t": columns["t"][:, 0].astype(np.int64),
        }
        for i, slot in enumerate(self.schema.layout.slots):
            alive = columns["alive"][:, i] > 0
            acted = columns.get("acted", columns["alive"])[:, i] > 0
            actions = np.asarray(slot.codec.to_env(columns["actions"][:, slot.actions]))
            # The code of nobody's action may stand for some action.
            actions = np.where(acted.reshape(-1, *[1] * (actions.ndim - 1)), actions, 0).astype(actions.dtype)
            own = {
                "obs": _rows(columns["obs"][:, slot.obs]),
                "actions": actions if actions.ndim == 1 else _rows(actions),
                "rewards": columns["rewards"][:, i],
                "new_obs": _rows(columns["new_obs"][:, slot.obs]),
                "terminateds": columns["terminateds"][:, i] > 0,
                "truncateds": columns["truncateds"][:, i] > 0,
                "alive": alive,
            }
            table |= {f"{slot.agent}/{_NAMES[name]}": values for name, values in own.items()}
            table |= {
                f"{slot.agent}/{column.name}": _numbers(columns[column.name][:, self._place(column, i, slot)])
                for column in self._extra
                if column.per != "env"
            }
        table |= {column.name: _numbers(columns[column.name]) for column in self._extra if column.per == "env"}
        return pa.table(table)

    @staticmethod
    def _place(column: Column, index: int, slot: AgentSlot) -> slice:
        """An agent's numbers in a column."""
        if column.per == "agents":
            return slice(index * column.width, (index + 1) * column.width)
        return getattr(slot, column.per)


def _numbers(values: np.ndarray) -> Any:
    """`[T, width]` -> T numbers if there is one each, else T lists."""
    return values[:, 0] if values.shape[1] == 1 else _rows(values)


def _rows(values: np.ndarray) -> pa.Array:
    """`[T, ...]` -> T lists."""
    flat = np.ascontiguousarray(values.reshape(len(values), -1))
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
