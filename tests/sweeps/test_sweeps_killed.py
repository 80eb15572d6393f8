"""Sweeps of which the driver is stopped or killed: real processes, and the env steps that they really made."""

import csv
import signal
import subprocess
import sys

import pytest
import yaml
from paths import ROOT
from sweep_driver import Driver
from sweep_settings import SETTINGS

pytestmark = pytest.mark.ray


@pytest.fixture
def start():
    """Starts drivers and ends those that a failed test has left, and with each its Ray."""
    drivers = []

    def _start(*args):
        drivers.append(Driver(*args))
        return drivers[-1]

    yield _start
    for driver in drivers:
        driver.process.kill()
        driver.process.wait()


def write(folder, trials, env_steps, every, cpus):
    count = folder / "steps"
    count.touch()
    data = {
        "env": "sweep_envs:CountedEnv",
        "env_config": {"file": str(count)},
        "settings": {**SETTINGS, "num_env_steps_per_update": 10},
        "search_space": {"lr": {"grid": [0.001 * (1 + n) for n in range(trials // 2)]}},
        "seeds": [0, 1],
        "stop": {"env_steps": env_steps},
        "checkpoint_every": every,
        "resources": {"cpus": cpus},
    }
    file = folder / "my.yaml"
    file.write_text(yaml.safe_dump(data))
    return file, count


def rows(out):
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_killed_sweep_goes_on(start, tmp_path):
    file, count = write(tmp_path, trials=4, env_steps=500, every=50, cpus=1)
    out, whole = tmp_path / "out", 4 * 500
    assert start(file, out).stop_when(count, 0.6 * whole, signal.SIGKILL) == -signal.SIGKILL
    finished = {f: f.read_bytes() for f in out.rglob("result.json") if f.read_text().count("\n") >= 10}
    again = start(file, out, "--resume")
    assert again.process.wait() == 0, again.log.read_text()
    assert whole <= count.stat().st_size <= 1.15 * whole
    table = rows(out)
    assert [(row["status"], row["env_steps"]) for row in table] == [("finished", "500")] * 4
    assert {(row["lr"], row["seed"]) for row in table} == {(lr, seed) for lr in ("0.001", "0.002") for seed in "01"}
    assert (out / "best_checkpoint" / "rllib_checkpoint.json").is_file()
    # What was finished when the driver died stays as it was.
    assert {f: f.read_bytes() for f in finished} == finished


@pytest.mark.slow
def test_sweep_stopped_and_killed_in_turn_goes_on(start, tmp_path):
    file, count = write(tmp_path, trials=8, env_steps=3000, every=150, cpus=2)
    out, whole = tmp_path / "out", 8 * 3000
    first = start(file, out)
    assert first.stop_when(count, 0.25 * whole, signal.SIGINT) == 130, first.log.read_text()
    text = first.log.read_text()
    assert f"Continue with: rllib-maddpg sweep {file} --out {out} --resume" in text
    # A table of what there is.
    assert {row["status"] for row in rows(out)} <= {"finished", "unfinished"} and len(rows(out)) >= 2
    second = start(file, out, "--resume")
    assert second.stop_when(count, 0.6 * whole, signal.SIGKILL) == -signal.SIGKILL
    last = start(file, out, "--resume", "--out", str(out))
    assert last.process.wait() == 0, last.log.read_text()
    assert whole <= count.stat().st_size <= 1.15 * whole
    assert [row["status"] for row in rows(out)] == ["finished"] * 8


@pytest.mark.slow
def test_small_grid_of_the_readme(start, tmp_path):
    out = tmp_path / "out"
    driver = start(ROOT / "tune_configs" / "grid_small.yaml", out, "--num-samples", "1")
    assert driver.process.wait() == 0, driver.log.read_text()
    table = rows(out)
    assert len(table) == 8 and {row["status"] for row in table} == {"finished"}
    assert all(int(row["env_steps"]) >= 5000 for row in table)
    assert all((out / name).is_file() for name in ("curves.png", "map.png", "best.json"))
    words = [sys.executable, "-m", "rllib_maddpg", "evaluate", str(out), "--episodes", "5", "--json"]
    assert '"episodes": 5' in subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, timeout=200).stdout
