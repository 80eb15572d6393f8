"""The README's Python blocks run as they stand, and its commands name options that exist."""

import re
import shlex
from pathlib import Path

import pytest

from rllib_maddpg.cli import make_parser

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


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


@pytest.mark.parametrize("command", re.findall(r"rllib-maddpg (?:train|evaluate|bench|export) .*", README))
def test_commands_can_be_parsed(command):
    make_parser().parse_args(shlex.split(command)[1:])
