"""The examples with Tune, as a user runs them: a small sweep, the same again with `--resume`, and a folder that is taken."""

import json
import os
import re
import subprocess
import sys

import pytest
from paths import ROOT

from rllib_maddpg.cli.program import main
from rllib_maddpg.results.result_files import read_progress

STEPS = "num_env_steps_sampled_lifetime"


def run(name, *args):
    """A finished process that ran the example."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)


def steps_of(out):
    """Env steps of each iteration of each trial."""
    return {p.name: [int(float(row[STEPS])) for row in read_progress(p)] for p in out.iterdir() if p.is_dir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "trials"),
    [("tune_run.py", [], 8), ("tuner.py", ["--num-samples", 3], 3), ("shared_learner.py", ["--num-samples", 3], 3)],
    ids=["run", "tuner", "shared"],
)
def test_an_example_sweeps_and_names_its_best_checkpoint(ray_session, tmp_path, capsys, name, arguments, trials):
    out = tmp_path / "sweep"
    arguments = ["--env-steps", 2000, "--out", out, *arguments]
    first = run(name, *arguments)
    assert first.returncode == 0, first.stderr
    assert f"Best of {trials}: " in first.stdout
    trained = steps_of(out)
    assert len(trained) == trials and max(map(max, trained.values())) == 2080
    checkpoint = re.search(r"rllib-maddpg evaluate '(.*)'", first.stdout)[1]
    assert main(["evaluate", checkpoint, "--episodes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checkpoint"] == checkpoint
    # Nothing is left to do, so the same best is found and nothing is trained.
    again = run(name, *arguments, "--resume")
    assert again.returncode == 0, again.stderr
    assert f"rllib-maddpg evaluate '{checkpoint}'" in again.stdout and steps_of(out) == trained
    taken = run(name, *arguments)
    assert taken.returncode == 2 and "is there already: go on with --resume" in taken.stderr
