"""Tests of the GPU run on the CPU, so that they are sound when there is a GPU."""

from __future__ import annotations

import os
import subprocess
import sys

from paths import ROOT

# Some of each file, with graphs, of what is quick.
SOME = "graph and (MATD3 or rates or shared) and not (continuous or float32) or to_the_bit"


def test_tests_of_the_gpu_run_on_the_cpu():
    """With a stand-in for CUDA's graphs; none of them is skipped, and none needs a Ray."""
    files = [str(path) for path in sorted((ROOT / "tests/cuda").glob("test_*.py")) if "whole_runs" not in path.name]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", SOME, *files]
    environment = {**os.environ, "MADDPG_CUDA_TESTS_ON": "cpu"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    summary = done.stdout.splitlines()[-1]
    assert int(summary.split(" passed")[0]) > 10 and "skipped" not in summary, summary
