"""The Python blocks of README and docs run as they stand, their commands name options that exist, and most are run."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from paths import ROOT

from rllib_maddpg.cli.program import make_parser

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)
# In the order of a user who reads on: later pages use the folders that earlier commands leave.
NAMES = ("sweeps", "tune", "shared_learner", "deployment", "watching", "clusters", "scaling")
PAGES = ["README.md", *(f"docs/{name}.md" for name in NAMES)]
COMMANDS = list(
    dict.fromkeys(
        line.strip()
        for page in PAGES
        for block in re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), re.S)
        for line in block.splitlines()
        if line.strip()
    )
)
# What other tests run, or no test can: a word of the command -> where, or why not.
ELSEWHERE = {
    "pip install": "CI installs so, and runs the tests",
    "ray start": "test_cluster.py has clusters of its own",
    "ray job": "needs a cluster with its dashboard",
    "--address": "test_cluster.py",
    "--port": "test_export.py serves and asks",
    "curl": "test_export.py serves and asks",
    "loggers.py": "test_loggers.py",
    "results/spread_s0": "names of three runs; test_curves.py has some",
    "~/ray_results": "a name of a user's; test_curves.py has some",
    "bench scale": "test_bench_scale.py",
    "population.yaml": "16 trials of 100,000 env steps; test_shared_sweep.py has some that end sooner",
}


def test_the_script_trains(ray_session, capsys):
    scope = {}
    exec(BLOCKS[0], scope)
    scope["algo"].stop()
    printed = capsys.readouterr().out
    for agent in ("adversary_0", "agent_0", "agent_1"):
        assert agent in printed


@pytest.mark.slow
def test_tune_by_name(ray_session, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # results go to ~/ray_results
    exec(BLOCKS[1], {})


@pytest.mark.parametrize("command", [c for c in COMMANDS if "rllib-maddpg" in c])
def test_commands_can_be_parsed(command):
    make_parser().parse_args(shlex.split(command[command.index("rllib-maddpg") :])[1:])


@pytest.mark.parametrize("words", [[], *([name] for name in ("train", "evaluate", "plot", "sweep", "bench", "export"))])
def test_help_can_be_printed(words, capsys):
    with pytest.raises(SystemExit, match="0"):
        make_parser().parse_args([*words, "-h"])
    assert "usage: rllib-maddpg" in capsys.readouterr().out


@pytest.mark.parametrize("page", re.findall(r"\]\((.*?)\)", README))
def test_linked_pages_are_there(page):
    assert (ROOT / page).is_file()


@pytest.mark.slow
def test_commands_run(tmp_path):
    """One after the other in one folder, with a hundredth of the env steps."""
    for name in ("examples", "tune_configs", "constraints.txt"):
        (tmp_path / name).symlink_to(ROOT / name)
    python = shlex.quote(sys.executable)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = []
    for command in COMMANDS:
        own = command.partition("&& ")[2] or command
        if "pytest" in own or any(word in own for word in ELSEWHERE):
            continue
        own = re.sub(r"--env-steps (\d+)", lambda m: f"--env-steps {max(2_000, int(m[1]) // 100)}", own)
        own = re.sub(r"--episodes \d+", "--episodes 5", own)
        own = own.replace("rllib-maddpg ", f"{python} -m rllib_maddpg ").replace("python examples", f"{python} examples")
        result = subprocess.run(own, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, f"{own}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
        done.append(own)
    assert len(done) >= 12
