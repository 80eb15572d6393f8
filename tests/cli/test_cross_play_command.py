"""`rllib-maddpg evaluate --opponent`: what it prints and writes, and what it refuses."""

import json

import pytest
from PIL import Image
from tiny_algorithm import tiny_config

from rllib_maddpg.cli.program import main
from rllib_maddpg.results.run_folder import RunFolder, short_path
from rllib_maddpg.runs.cross_play import evaluate_cross_play, evaluate_pairings


@pytest.fixture(scope="module")
def runs(ray_session, tmp_path_factory):
    """Two run folders, each with a checkpoint."""
    folders = [tmp_path_factory.mktemp("runs") / name for name in ("own", "other")]
    for seed, folder in enumerate(folders):
        algo = tiny_config(seed).build_algo()
        RunFolder(folder).save_checkpoint(algo, 40, keep=1)
        algo.stop()
    return folders


def evaluate(*words):
    return main(["evaluate", *map(str, words), "--episodes", "3", "--seed", "5"])


def test_json_says_who_played_and_equals_the_python_api(runs, capsys, tmp_path):
    own, other = runs
    assert evaluate(own, "--opponent", f"adversary_*={other}", "--json", "--gif", tmp_path / "g.gif") == 0
    data = json.loads(capsys.readouterr().out)
    assert data.pop("checkpoint") == str(own / "checkpoints" / "000000040") and data.pop("seed") == 5
    assert data == evaluate_cross_play(own, {"adversary_*": other}, episodes=3, seed=5).to_dict()
    assert data["pairing"]["adversary_0"] == str(other / "checkpoints" / "000000040")
    with Image.open(tmp_path / "g.gif") as film:
        assert film.n_frames > 1


def test_a_window_shows_the_same_games(runs, capsys, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # a window that nobody sees
    own, other = runs
    assert evaluate(own, "--opponent", f"adversary_*={other}", "--json", "--render") == 0
    data = json.loads(capsys.readouterr().out)
    # Not side by side: other starts than those of several envs.
    alone = evaluate_cross_play(own, {"adversary_*": other}, episodes=3, seed=5, num_envs=1).to_dict()
    assert {key: data[key] for key in alone} == alone


def test_the_pairing_comes_before_the_table(runs, capsys):
    own, other = runs
    assert evaluate(own, "--opponent", f"agent_0={other}", "--opponent", f"agent_1={other}") == 0
    lines = capsys.readouterr().out.splitlines()
    game = evaluate_cross_play(own, {"agent_?": other}, episodes=3, seed=5)
    assert lines[1] == f"adversary_0 played by {short_path(own / 'checkpoints' / '000000040')}"
    assert lines[2] == f"agent_0, agent_1 played by {short_path(other / 'checkpoints' / '000000040')}"
    assert lines[3].split() == ["3", "episodes", "without", "noise", "mean", "95", "%", "interval"]
    team = game.evaluation.team
    assert lines[4].split()[:3] == ["team", "return", f"{team.mean:.3f}"]
    assert f"[{team.low:.3f}, {team.high:.3f}]" in lines[4]


def test_all_pairings_and_their_differences(runs, capsys):
    own, other = runs
    words = (own, "--opponent", f"adversary_*={other}", "--pairings")
    games = evaluate_pairings(own, {"adversary_*": other}, episodes=3, seed=5)
    assert evaluate(*words, "--json") == 0
    pairings = json.loads(capsys.readouterr().out)["pairings"]
    differences = [pairing.pop("difference", None) for pairing in pairings]
    assert pairings == [game.to_dict() for game in games]
    first = games[0].evaluation
    assert differences == [None, *[game.evaluation.minus(first).to_dict() for game in games[1:]]]
    assert evaluate(*words) == 0
    tables = capsys.readouterr().out.split("\n\n")
    assert len(tables) == 5 and "differences: to the first pairing" in tables[0]
    assert "difference" not in tables[1]
    for table, game in zip(tables[2:], games[1:], strict=True):
        (line,) = (line for line in table.splitlines() if line.startswith("  agent_1"))
        mine, more = game.evaluation.agents["agent_1"], game.evaluation.minus(first).agents["agent_1"]
        numbers = [f"{x:.3f}" for e in (mine, more) for x in (e.mean, e.low, e.high)]
        assert line.replace("[", " ").replace("]", " ").replace(",", " ").split() == ["agent_1", *numbers]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--opponent", "adversary_0"], "--opponent 'adversary_0' must be PATTERN=DIR"),
        (["--opponent", "=x"], "--opponent '=x' must be PATTERN=DIR"),
        (["--opponent", "adversary_0="], "--opponent 'adversary_0=' must be PATTERN=DIR"),
        (["--opponent", "a=x", "--opponent", "a=y"], "--opponent has 'a' twice: with 'x' and 'y'"),
        (["--opponent", "adversary_0=no/such=folder"], "no/such=folder is no folder"),
        (["--opponent", "adversery_0=OTHER"], "matches no agent. Did you mean 'adversary_0'"),
        (["--pairings"], "--pairings needs another run"),
    ],
)
def test_wrong_words(runs, capsys, words, text):
    assert evaluate(runs[0], *[word.replace("OTHER", str(runs[1])) for word in words]) == 2
    out, err = capsys.readouterr()
    assert not out and text in err and err.startswith("rllib-maddpg: error: ") and err.count("\n") == 1


def test_pairings_have_no_pictures(runs, capsys):
    with pytest.raises(SystemExit):
        evaluate(runs[0], "--opponent", f"agent_0={runs[1]}", "--pairings", "--gif", "x.gif")
    assert "not allowed with argument" in capsys.readouterr().err
