"""What the example of policy ensembles makes of the games of runs, by hand; and that it plays what a sweep has left."""

import importlib.util

import numpy as np
import pytest
from paths import ROOT
from tiny_algorithm import tiny_config

from rllib_maddpg.runs.cross_play import evaluate_cross_play


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("ensembles_example", ROOT / "examples" / "ensembles.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_means_and_differences_of_each_side(example):
    """Returns 10 K + seed of the good agents + start, and 100 K of the adversary; two seeds, three starts."""
    runs = [(k, seed) for k in (1, 3) for seed in (0, 1)]
    starts = np.array([0.0, 1.0, 2.0])
    games = {
        (good, bad): {"good agents": 10.0 * good[0] + good[1] + starts, "adversary": 100.0 * bad[0] + 0 * starts}
        for good in runs
        for bad in runs
        if good[1] != bad[1]
    }
    good = example.estimates(games, "good agents")
    assert [e.mean for e in good.values()] == [11.5, 31.5, 20.0] and list(good) == ["K = 1", "K = 3", "K = 3 minus K = 1"]
    spread = 1.96 / np.sqrt(3)  # the starts' standard deviation is 1
    assert good["K = 1"].high - 11.5 == pytest.approx(spread) and good["K = 3 minus K = 1"].low == 20.0
    assert [e.mean for e in example.estimates(games, "adversary").values()] == [100.0, 300.0, 200.0]


def test_it_plays_the_runs_of_a_sweep(example, ray_session, tmp_path):
    lines = ["num_sub_policies,seed,checkpoint"]
    for k, seed in ((1, 0), (3, 1)):
        algo = tiny_config(seed).training(num_sub_policies=k).build_algo()
        algo.save_to_path(str(tmp_path / f"run_{k}"))
        algo.stop()
        lines.append(f"{k},{seed},run_{k}")
    (tmp_path / "results.csv").write_text("\n".join([*lines, "1,2,"]) + "\n")
    runs = example.runs_of(tmp_path)
    assert runs == {(1, 0): tmp_path / "run_1", (3, 1): tmp_path / "run_3"}
    games = example.play(runs, 5)
    assert set(games) == {((1, 0), (3, 1)), ((3, 1), (1, 0))}
    expected = evaluate_cross_play(runs[1, 0], {"adversary_*": runs[3, 1]}, 5, example.SEED).evaluation
    found = games[(1, 0), (3, 1)]
    assert found["good agents"].tolist() == [record.returns["agent_0"] for record in expected.records]
    assert found["adversary"].tolist() == [record.returns["adversary_0"] for record in expected.records]
