"""Memory of a full replay buffer, measured in a process of its own: `python -m benchmarks.resident SCENARIO ROWS`."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil

from rllib_maddpg.envs import probe_env
from rllib_maddpg.replay import JointReplayBuffer
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import RowSchema

_FRAGMENT_ROWS = 100


def resident_bytes(scenario: str, rows: int) -> tuple[int, int]:
    """Fills a buffer in a fresh process.

    Returns:
        Growth of its resident memory, and what `bytes_per_row` says, both in bytes.
    """
    package_root = str(Path(__file__).parents[1])
    path = os.pathsep.join([package_root, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.resident", scenario, str(rows)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"},
        check=True,
        text=True,
    )
    # The last line: libraries may greet before it.
    resident, expected = json.loads(done.stdout.splitlines()[-1])
    return resident, expected


def _fill_and_measure(scenario: str, rows: int) -> tuple[int, int]:
    spaces = probe_env(scenario, {"continuous_actions": True})
    schema = RowSchema(JointLayout(spaces.observation_spaces, spaces.action_spaces, str))
    rollout = JointRollout.empty(schema, _FRAGMENT_ROWS)
    for column in rollout.columns.values():
        column[:] = np.random.default_rng(0).random(column.shape)
    # A small buffer first: what the first use of the code takes is none of the rows' memory.
    JointReplayBuffer(schema, _FRAGMENT_ROWS).add(rollout)
    gc.collect()
    before = psutil.Process().memory_info().rss
    buffer = JointReplayBuffer(schema, rows)
    while buffer.num_rows_added < rows:
        buffer.add(rollout)
    gc.collect()
    return psutil.Process().memory_info().rss - before, buffer.bytes_per_row * rows


if __name__ == "__main__":
    print(json.dumps(_fill_and_measure(sys.argv[1], int(sys.argv[2]))))
