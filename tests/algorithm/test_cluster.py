"""Real clusters: a node goes in the middle of training and another comes; the example; the command line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from paths import EXAMPLES, HELPERS, PYTHONPATH

from rllib_maddpg.cli.program import main

pytestmark = pytest.mark.ray
EXAMPLE = EXAMPLES / "cluster.py"


def environment():
    return {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": PYTHONPATH}


def play(**options):
    """What `cluster_scenario.py` tells of a run that loses a node with half of the runners, and gets another one."""
    command = [sys.executable, str(HELPERS / "cluster_scenario.py"), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment())
    assert done.returncode == 0, done.stderr[-3000:]
    # Ray writes there, too.
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "pipelined"},
        pytest.param({"mode": "async", "learners": 1}, marks=pytest.mark.slow),
        pytest.param({"mode": "async", "learners": 2, "per_node": 2, "wait_for_new_node": False}, marks=pytest.mark.slow),
        pytest.param({"mode": "pipelined", "learners": 1, "shards": 2}, marks=pytest.mark.slow),
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_training_survives_a_node(options):
    report = play(**options)
    half, learners = options.get("per_node", 1), options.get("learners", 0)
    # There was no room for the lost runners until the new node came; then they lived there, and the others where they were.
    assert [report[phase]["runners"] for phase in ("before", "removed", "back", "after")] == [
        2 * half,
        half,
        2 * half,
        2 * half,
    ]
    assert report["lost_runners"] == half and report["moved"] and report["stayed"]
    if options.get("wait_for_new_node", True):
        assert report["without"]["runners"] == half and report["without"]["env_steps"] >= 400
    # Every env step that is counted was stored, once and whole.
    steps = report["env_steps"]
    assert report["rows"] == report["rows_added"] == report["result_env_steps"] == report["runners_env_steps"] == steps
    assert report["broken"] == []
    # One update for each 50 env steps, from that round on in which 40 were there.
    assert 0 <= steps - (50 * report["updates"] + report["owed"]) < 40
    assert report["trained_rows"] == 16 * report["updates"] * max(1, learners)


# ------------------------------------------------------------------------------------------ what users start


@pytest.fixture(scope="module")
def address():
    """Of a cluster of two nodes with two cores each."""
    command = [sys.executable, str(HELPERS / "cluster_nodes.py"), "2", "2"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment()
    )
    yield process.stdout.readline().strip()
    process.stdin.close()
    process.wait(timeout=60)


def on_cluster(*words):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=280, env=environment())


@pytest.mark.slow
def test_the_example_spreads_over_the_nodes(address, tmp_path):
    words = [str(EXAMPLE), "--address", address, "--storage-path", str(tmp_path), "--num-env-runners", "2", "--num-envs", "2"]
    done = on_cluster(*words, "--num-learners", "1", "--env-steps", "2000")
    assert done.returncode == 0, done.stderr[-3000:]
    env_steps, nodes = re.search(r"([\d,]+) env steps; runners and Learners on: (\{.*\})", done.stdout).groups()
    nodes = json.loads(nodes.replace("'", '"'))
    assert int(env_steps.replace(",", "")) >= 2000
    assert sum(nodes["env_runners"].values()) == 2 and sum(nodes["learners"].values()) == 1
    # Four bundles of one core each on two nodes of two.
    assert len({nodes["driver"], *nodes["env_runners"], *nodes["learners"]}) == 2
    checkpoint = Path(re.search(r"Checkpoint: (.*)", done.stdout).group(1))
    assert checkpoint.is_relative_to(tmp_path) and (checkpoint / "learner_group").is_dir()


def test_the_command_line_takes_an_address(address, tmp_path):
    words = ["-m", "rllib_maddpg", "train", "simple_spread", "--address", address, "--out", str(tmp_path / "run")]
    done = on_cluster(*words, "--num-env-runners", "1", "--env-steps", "1000")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "learning_curve.png").is_file()


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("ray://127.0.0.1:10001", "must be HOST:PORT of the cluster's head, or auto.*ray job submit"),
        ("127.0.0.1", "must be HOST:PORT"),
        ("127.0.0.1:1", "--address 127.0.0.1:1: nobody listens there.*ray start --head"),
    ],
)
def test_bad_addresses(tmp_path, capsys, address, text, monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    assert main(["train", "simple_spread", "--address", address, "--out", str(tmp_path / "run")]) == 2
    assert re.search(text, capsys.readouterr().err)
