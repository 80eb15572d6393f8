"""What every member of the family from outside the package must do: go on bit for bit, also elsewhere, and on two Learners."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import ray
import torch
from paths import PYTHONPATH
from ray.rllib.core.learner.learner_group import LearnerGroup

STEPS = "num_env_steps_sampled_lifetime"


def flat(state: Any, name: str = "") -> dict[str, np.ndarray]:
    """All numbers in nested dicts and lists, by their paths."""
    if isinstance(state, Mapping):
        return {k: v for key, part in state.items() for k, v in flat(part, f"{name}/{key}").items()}
    if isinstance(state, (list, tuple)):
        return {k: v for i, part in enumerate(state) for k, v in flat(part, f"{name}/{i}").items()}
    if isinstance(state, torch.Tensor):
        return {name: state.detach().cpu().numpy().copy()}
    return {name: np.array(state)} if isinstance(state, (np.ndarray, np.generic, int, float)) else {}


def learned_by(algo) -> dict[str, np.ndarray]:
    """All networks, targets and moments of Adam, and all replay rows."""
    state = algo.learner_group.get_state()["learner"]
    learned = {key: state[key] for key in ("rl_module", "optimizer", "num_updates", "noise_keys")}
    replay = algo.replay_buffer.get_state()
    return flat({**learned, "rows": replay["columns"] if "columns" in replay else [s["columns"] for s in replay["shards"]]})


def assert_same(one: Mapping[str, np.ndarray], two: Mapping[str, np.ndarray]) -> None:
    assert one.keys() == two.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name], err_msg=name)


def train_elsewhere(checkpoint: str, iterations: int, out: str, num_cpus: int = 1) -> None:
    """Goes on from a checkpoint in a new process, which knows nothing but the folders that code lies in.

    `num_cpus`: 1, and one for each replay shard.
    """
    train_all_elsewhere({checkpoint: out}, iterations, num_cpus)


def train_all_elsewhere(outs: Mapping[str, str], iterations: int, num_cpus: int = 1) -> None:
    """As `train_elsewhere`, one checkpoint after the other in one process; checkpoint -> out."""
    script = f"""
        import ray
        from ray.rllib.algorithms.algorithm import Algorithm
        ray.init("local", num_cpus={num_cpus}, include_dashboard=False, log_to_driver=False)
        for checkpoint, out in {dict(outs)!r}.items():
            algo = Algorithm.from_checkpoint(checkpoint)
            for _ in range({iterations}):
                algo.train()
            algo.save_to_path(out)
            algo.stop()
    """
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]


def update_both(algo, group: LearnerGroup, updates: int, rows: int) -> list[Mapping]:
    """The same start and the same rows for the algorithm's Learner and, one half each, for the two of a group.

    Rows are drawn ones and, where updates need them, the newest.

    Returns the metrics of the last update.
    """
    group.set_state(algo.learner_group.get_state())
    results = []
    for k in range(updates):
        batch = algo.replay_buffer.draw(1, 1, 2 * rows)[0].to(torch.device("cpu"), algo.schema)
        halves = [batch.rows(half) for half in (slice(rows), slice(rows, None))]
        if algo.config.needs_newest_rows:
            batch.newest = algo.replay_buffer.latest(2 * rows)
            for half, newest in zip(halves, batch.newest.shards(2, rows), strict=True):
                half.newest = newest
        halves = [ray.put(half) for half in halves]
        now = {"timesteps": {STEPS: 1000 + k}}
        results = [algo.learner_group.update(batch=batch, **now), group.update(batch_refs=halves, **now)]
    return results
