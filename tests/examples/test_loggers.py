"""`examples/loggers.py`: what W&B, MLflow and Aim hold afterwards are the results; all offline."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from paths import EXAMPLES

EXAMPLE = EXAMPLES / "loggers.py"
KEYS = (
    "env_runners/episode_return_mean",
    "env_runners/agent_episode_returns_mean/agent_0",
    "learners/agent_2/critic_loss",
    "replay_buffer/fill",
)


def train(logger, folder):
    """The example's two trials of 2,000 env steps: by trial id, its rows of `KEYS` by env steps."""
    results = runpy.run_path(str(EXAMPLE))["train"](logger, folder, 2000)
    assert not results.errors
    trials = {}
    for result in results:
        rows = [json.loads(line) for line in Path(result.path, "result.json").read_text().splitlines()]
        trials[rows[0]["trial_id"]] = {row["timesteps_total"]: {key: at(row, key) for key in KEYS} for row in rows}
    assert len(trials) == 2 and all(list(rows) == [1000, 2000] for rows in trials.values())
    return trials


def at(row, key):
    for part in key.split("/"):
        row = row.get(part, {})
    return row or None


def known(rows, key):
    return {step: row[key] for step, row in rows.items() if row[key] is not None}


def test_mlflow_file_store(ray_session, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    trials = train("mlflow", tmp_path)
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    runs = client.search_runs([client.get_experiment_by_name("maddpg").experiment_id])
    assert len(runs) == 2
    assert {run.data.params["lr"] for run in runs} == {"0.01", "0.001"}
    for run in runs:
        rows = next(rows for trial, rows in trials.items() if trial in run.data.tags["trial_name"])
        for key in KEYS:
            logged = {m.step: m.value for m in client.get_metric_history(run.info.run_id, key)}
            assert logged == pytest.approx(known(rows, key))
        assert run.info.status == "FINISHED"


def leveldb_records(data, first_block):
    """The records of a file in LevelDB's log format; `first_block` bytes of its first block are missing."""
    position, whole = 0, b""
    while position + 7 <= len(data):
        left = 32768 - (position + first_block) % 32768
        if left < 7:  # too little for a head: filled up with zeros
            position += left
            continue
        # A head: checksum (4 bytes), length (2), type (1: whole, 2: first part, 3: middle part, 4: last part).
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


@pytest.mark.slow
def test_wandb_offline(ray_session, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    trials = train("wandb", tmp_path)
    files = list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    for file in files:
        logged = []
        for data in leveldb_records(file.read_bytes()[7:], first_block=7):
            record = Record()
            record.ParseFromString(data)
            items = record.history.item
            if items:
                logged.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
        rows = trials[file.stem.removeprefix("run-")]
        for key in KEYS:
            values = {row["timesteps_total"]: row[key] for row in logged if key in row}
            assert values == pytest.approx(known(rows, key))


def test_aim_repository(ray_session, tmp_path):
    aim = pytest.importorskip("aim")
    trials = train("aim", tmp_path)
    # A closed run is not found before it is in the index.
    command = Path(sys.executable).with_name("aim")
    subprocess.run([command, "storage", "--repo", str(tmp_path), "reindex", "-y"], check=True, capture_output=True)
    found = 0
    for run in aim.Repo(str(tmp_path)).iter_runs():
        rows = trials[run["trial_id"]]
        found += 1
        for key in KEYS:
            metric = next(m for m in run.metrics() if m.name == f"ray/tune/{key}")
            logged = dict(metric.dataframe()[["step", "value"]].values.tolist())
            assert logged == pytest.approx(known(rows, key))
    assert found == 2
