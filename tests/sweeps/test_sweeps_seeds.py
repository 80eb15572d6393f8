"""A sweep of one configuration over many seeds: no search space, and a curve with a band."""

import csv
import json

import numpy as np
import pytest
import yaml
from matplotlib.colors import to_rgba
from paths import ROOT
from sweep_settings import SETTINGS

from rllib_maddpg.cli.program import main
from rllib_maddpg.plotting.curves import mean_curve
from rllib_maddpg.sweeps.pictures import draw_curves, save_pictures
from rllib_maddpg.sweeps.ranking import FAILED, FINISHED, UNFINISHED, TrialRecord, rank_points
from rllib_maddpg.sweeps.resources import check_resources
from rllib_maddpg.sweeps.schema import read_sweep

POPULATION = ROOT / "tune_configs" / "population.yaml"


def trial(seed, curve, status=FINISHED, **values):
    return TrialRecord(f"t{seed}", values, seed, status, int(curve[-1][0]), 1.0, curve, None, "")


def curves_of(trials, sweep):
    """Colour, label and points of each line; the bands; the title."""
    (axes,) = draw_curves(rank_points(trials, sweep), sweep).axes
    lines = [(line.get_color(), line.get_label(), line.get_xydata()) for line in axes.lines]
    return lines, axes.collections, axes.get_title("left")


def test_sixteen_seeds_need_no_search_space():
    sweep = read_sweep(POPULATION)
    check_resources(sweep)
    assert (sweep.axes, sweep.num_points, sweep.num_trials, sweep.seeds) == ([], 1, 16, list(range(16)))
    assert sweep.shares_learner


def test_their_curve_is_the_mean_with_its_band():
    sweep = read_sweep(POPULATION)
    trials = [trial(seed, [(1000 * n, -100.0 + seed + n * (1 + seed % 3)) for n in range(1, 6)]) for seed in range(16)]
    trials.append(trial(16, [(1000, -500.0)], FAILED))
    lines, (band,), title = curves_of(trials, sweep)
    wanted = mean_curve([np.array(t.curve, float).T for t in trials[:16]])
    colour, label, points = lines[0]
    assert points == pytest.approx(np.stack([wanted.env_steps, wanted.mean], axis=1))
    assert colour == "#d62728" and label.startswith("mean, with the 95 % band of the mean (")
    low, high = band.get_datalim(band.axes.transData).intervaly
    assert (low, high) == pytest.approx((wanted.low.min(), wanted.high.max()))
    # Below it each seed, faintly, and the mark of the one that failed.
    assert sum(line[0] == to_rgba("#d62728", 0.25) for line in lines) == 17 + 1 and title == "simple_spread: 16 seeds"


def test_unfinished_seeds_have_a_band_as_far_as_all_have_come():
    sweep = read_sweep(POPULATION)
    trials = [trial(seed, [(1000 * n, float(seed)) for n in range(1, 3 + seed)], UNFINISHED) for seed in range(6)]
    assert curves_of(trials, sweep)[0][0][2][:, 0].tolist() == [1000.0, 2000.0]
    # None has a step in common with all others.
    trials = [trial(seed, [(1000 * (seed + 1), 0.0)], UNFINISHED) for seed in range(6)]
    lines, bands, _ = curves_of(trials, sweep)
    assert len(bands) == 0 and len(lines) == 6


def test_few_seeds_are_drawn_one_by_one():
    sweep = read_sweep(ROOT / "tune_configs" / "simple_spread.yaml")
    trials = [trial(seed, [(1000, 1.0), (2000, lr)], lr=lr) for lr in (0.1, 0.2) for seed in range(4)]
    lines, bands, title = curves_of(trials, sweep)
    assert len(lines) == 8 and len(bands) == 0 and title == "simple_spread: 2 points, 3 seeds each"


def test_there_is_no_map_without_a_search_space(tmp_path):
    sweep = read_sweep(POPULATION)
    trials = [trial(seed, [(1000, float(seed))]) for seed in range(16)]
    assert [file.name for file in save_pictures(rank_points(trials, sweep), sweep, tmp_path)] == ["curves.png"]


def test_seeds_alone_are_trained_and_the_best_is_kept(ray_session, tmp_path, capsys):
    data = {"env": "sweep_envs:CountedEnv", "settings": SETTINGS, "seeds": [3, 4], "stop": {"env_steps": 100}}
    file, out = tmp_path / "my.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(data))
    assert main(["sweep", str(file), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "1 point x 2 seeds of 100 env steps" in printed and "Mean over seeds by env_runners/episode_return_mean" in printed
    with (out / "results.csv").open(newline="") as rows:
        table = list(csv.DictReader(rows))
    assert [row["seed"] for row in table] == ["3", "4"] and {row["status"] for row in table} == {"finished"}
    best = json.loads((out / "best.json").read_text())
    assert best["values"] == {} and f"Best seed: {best['trial_seed']}" in printed
    assert (out / "best_checkpoint" / "rllib_checkpoint.json").is_file()
    assert (out / "curves.png").is_file() and not (out / "map.png").exists()


@pytest.mark.parametrize(
    ("more", "key", "text"),
    [
        ("search: optuna\nnum_samples: 3\n", "search", "optuna has nothing to search"),
        ("scheduler: pbt\nsearch: random\n", "scheduler", "pbt has nothing to mutate"),
        ("search: random\nnum_samples: 3\n", "search", "there is nothing to draw"),
    ],
)
def test_what_needs_a_search_space_says_so(more, key, text, tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(f"env: simple_spread\nseeds: [0, 1]\nstop: {{env_steps: 100}}\n{more}")
    with pytest.raises(ValueError, match=text) as error:
        read_sweep(file)
    line = 1 + [text.split(":")[0] for text in file.read_text().splitlines()].index(key)
    assert str(error.value).startswith(f"{file}:{line}: `{key}`: ")
