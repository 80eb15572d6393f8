"""Recording: what env runners sample, as Parquet files with one row for each env step."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.sampling.episodes import rollout_from_episodes

TRAINING, EVALUATION = "training", "evaluation"


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
    """Writes the episodes of one env runner to `output/training` or `output/evaluation`.

    Columns: `eps_id`, `t` (env steps since the episode's start), and for each agent `<agent>/obs`, `<agent>/next_obs` (as the
    module saw them), `<agent>/action` (as the env got it), `<agent>/reward`, `<agent>/terminated`, `<agent>/truncated`,
    `<agent>/alive` (whether it acts in this row; if not, its other values are zeros, but for `next_obs` when it joins next).
    """

    def __init__(self, layout: JointLayout, config: Any, worker_index: int):
        self.layout = layout
        self.max_rows: int | None = config.output_max_rows_per_file
        self.write_remaining: bool = config.output_write_remaining_data
        self._filesystem, folder = make_folder(f"{config.output}/{EVALUATION if config.in_evaluation else TRAINING}")
        # A runner that was restarted, or another run, must not write over these files.
        self._prefix = f"run-{worker_index:06d}-{uuid.uuid4().hex[:8]}"
        self._folder, self._files = folder, 0
        self._waiting: list[pa.Table] = []

    def record(self, episodes: Sequence[MultiAgentEpisode]) -> None:
        """Takes episodes, or chunks of them, and writes the files that are full."""
        self._waiting += [self._table(episode) for episode in episodes]
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

    def _table(self, episode: MultiAgentEpisode) -> pa.Table:
        rollout = rollout_from_episodes([episode], self.layout)
        steps, columns = len(rollout), rollout.columns
        table: dict[str, Any] = {
            "eps_id": pa.array([episode.id_] * steps, pa.string()),
            "t": episode.env_t_started + np.arange(steps),
        }
        for i, slot in enumerate(self.layout.slots):
            alive = columns["alive"][:, i] > 0
            truncated = np.zeros(steps, bool)
            if alive.any() and episode.agent_episodes[slot.agent].is_truncated:
                truncated[np.flatnonzero(alive)[-1]] = True
            actions = np.asarray(slot.codec.to_env(columns["actions"][:, slot.actions]))
            # The code of nobody's action may stand for some action.
            actions = np.where(alive.reshape(-1, *[1] * (actions.ndim - 1)), actions, 0).astype(actions.dtype)
            table |= {
                f"{slot.agent}/obs": _rows(columns["obs"][:, slot.obs]),
                f"{slot.agent}/action": actions if actions.ndim == 1 else _rows(actions),
                f"{slot.agent}/reward": columns["rewards"][:, i],
                f"{slot.agent}/next_obs": _rows(columns["new_obs"][:, slot.obs]),
                f"{slot.agent}/terminated": columns["terminateds"][:, i] > 0,
                f"{slot.agent}/truncated": truncated,
                f"{slot.agent}/alive": alive,
            }
        return pa.table(table)


def _rows(values: np.ndarray) -> pa.Array:
    """`[T, ...]` -> T lists."""
    flat = np.ascontiguousarray(values.reshape(len(values), -1))
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
