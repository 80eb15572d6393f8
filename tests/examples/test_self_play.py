"""Self-play: the example in short, and what it stands on."""

import re
import sys

import numpy as np
import pytest
import torch
from paths import EXAMPLES

sys.path.insert(0, str(EXAMPLES))

import self_play

pytestmark = pytest.mark.usefixtures("ray_session")


def test_the_example_plays_the_newest_player_against_its_league(capsys):
    self_play.main(["--generations", "2", "--iterations", "1", "--env-steps", "480", "--episodes", "2"])
    out = capsys.readouterr().out
    trained = re.findall(r"generation (\d) trained against snapshot (\d): return", out)
    assert [(g, int(s) < int(g)) for g, s in trained] == [("1", True), ("2", True)]
    table = [[float(x) for x in row.split()] for row in re.findall(r"^snapshot \d +(.*)$", out, re.MULTILINE)]
    assert len(table) == 3
    for newest, past, rule, lead in table:
        assert newest + past + rule == pytest.approx(0.0, abs=0.2)  # zero-sum, rounded
        assert lead == pytest.approx(newest - past, abs=0.2)


def test_a_snapshot_stays_what_it_was_and_plays_in_a_frozen_module(build):
    algo = build(self_play.make_config(480, seed=1))
    snapshot = algo.get_weights(["newest"])["newest"]
    before = {name: value.copy() for name, value in snapshot.items()}
    rule = algo.get_weights()["rule"]
    algo.train()
    learned = algo.get_weights(["newest"])["newest"]
    assert any(not np.array_equal(learned[name], value) for name, value in before.items())
    for name, value in before.items():
        np.testing.assert_array_equal(snapshot[name], value, err_msg=name)
    algo.set_weights({"past": snapshot})
    obs = torch.randn(7, 8)
    newest = algo.get_module("newest").forward_inference({"obs": obs})["actions"]
    past = algo.get_module("past").forward_inference({"obs": obs})["actions"]
    assert not torch.equal(newest, past)
    algo.set_weights({"newest": snapshot})
    assert torch.equal(algo.get_module("newest").forward_inference({"obs": obs})["actions"], past)
    # Training goes on from there, and leaves the frozen modules as they are.
    algo.train()
    for name, value in algo.get_weights(["past"])["past"].items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert rule == algo.get_weights()["rule"] == {}
