"""The example that plays exported actors of a game of turns against a random player."""

import importlib.util
import json
import sys

import pytest
from paths import ROOT

from rllib_maddpg import MADDPGConfig

spec = importlib.util.spec_from_file_location("tictactoe_example", ROOT / "examples" / "tictactoe.py")
tictactoe = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tictactoe)


def test_games_are_counted(ray_session, tmp_path, monkeypatch, capsys):
    config = MADDPGConfig().environment("classic/tictactoe_v3").reporting(min_sample_timesteps_per_iteration=20)
    algo = config.build_algo()
    algo.train()
    checkpoint = algo.save_to_path(str(tmp_path / "run"))
    algo.stop()
    report = tmp_path / "report.json"
    monkeypatch.setattr(sys, "argv", ["tictactoe.py", checkpoint, "--games", "20", "--json", str(report)])
    tictactoe.main()
    found = json.loads(report.read_text())["run"]
    assert list(found) == ["player_1", "player_2"]
    said = capsys.readouterr().out
    for side, own in found.items():
        assert own["wins"] + own["draws"] + own["losses"] == 20
        assert f"| run | {side} | {own['wins']} | {own['draws']} | {own['losses']} |" in said


def test_wilsons_interval():
    """Of 81 of 263, in Newcombe 1998, table I: 0.2553 to 0.3662."""
    assert tictactoe.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_runs_of_a_sweep(tmp_path):
    (tmp_path / "results.csv").write_text("seed,checkpoint\n0,a/b\n1,\n2,c\n")
    assert tictactoe.runs_of(tmp_path) == {"seed 0": tmp_path / "a/b", "seed 2": tmp_path / "c"}
    assert tictactoe.runs_of(tmp_path / "run") == {"run": tmp_path / "run"}
