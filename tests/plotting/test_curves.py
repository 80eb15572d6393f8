"""Learning curves of many runs: which belong together, their mean and band by hand, what is drawn and refused."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from rllib_maddpg.cli.program import main
from rllib_maddpg.plotting.curve_plot import draw_mean_curves
from rllib_maddpg.plotting.curves import MeanCurve, find_runs, group_runs, mean_curve, read_values, smooth, without_abandoned

TEAM, STEPS = "env_runners/episode_return_mean", "num_env_steps_sampled_lifetime"


def write_run(folder, returns, every=100, **params):
    """A folder as Tune leaves it; None: no episode has ended."""
    folder.mkdir(parents=True)
    (folder / "params.json").write_text(json.dumps({"env": "simple_spread", **params}))
    with (folder / "result.json").open("w") as f:
        for n, value in enumerate(returns, 1):
            result = {"env_runners": {}, STEPS: n * every, "config": params, "learners": {"a": {"critic_loss": n / 2}}}
            if value is not None:
                result["env_runners"] = {"episode_return_mean": value, "agent_episode_returns_mean": {"a": value, "b": 0.0}}
            f.write(json.dumps(result) + "\n")
    return folder


def test_mean_and_student_t_band_by_hand():
    # At 100: values 1, 2, 6: mean 3, variance ((-2)^2 + 1 + 9) / 2 = 7, t(0.975, 2) = 4.302653.
    x = np.array([0.0, 100.0])
    curve = mean_curve([(x, np.array([0.0, value])) for value in (1.0, 2.0, 6.0)])
    assert curve.env_steps.tolist() == [0, 100]
    assert curve.mean[1] == pytest.approx(3)
    assert curve.high[1] - 3 == pytest.approx(4.302653 * math.sqrt(7 / 3), rel=1e-6)
    assert 3 - curve.low[1] == pytest.approx(4.302653 * math.sqrt(7 / 3), rel=1e-6)
    assert curve.low[0] == curve.high[0] == 0


def test_runs_meet_at_common_env_steps_and_end_with_the_shortest():
    one = (np.array([100.0, 200.0, 300.0]), np.array([1.0, 2.0, 3.0]))
    two = (np.array([150.0, 250.0, 400.0]), np.array([10.0, 20.0, 0.0]))
    curve = mean_curve([one, two])
    assert curve.env_steps.tolist() == [150, 200, 250, 300]
    # The second at 200: 15; at 300: 20 - 20 / 3.
    assert curve.mean.tolist() == pytest.approx([(1.5 + 10) / 2, (2 + 15) / 2, (2.5 + 20) / 2, (3 + 20 - 20 / 3) / 2])
    alone = mean_curve([one])
    assert alone.mean.tolist() == [1, 2, 3] and np.isnan(alone.low).all()
    with pytest.raises(ValueError, match="one begins at 400, another ends at 300"):
        mean_curve([one, (np.array([400.0]), np.array([1.0]))])


def test_smoothing_is_a_mean_of_the_last_values():
    values = np.array([1.0, 3.0, 8.0, 0.0])
    assert smooth(values, 1).tolist() == [1, 3, 8, 0]
    assert smooth(values, 3).tolist() == pytest.approx([1, 2, 4, 11 / 3])


def test_rows_that_a_resumed_run_went_back_behind_are_dropped():
    assert without_abandoned([1, 2, 3, 2.5, 4], float) == [1, 2, 2.5, 4]


def test_groups_are_all_settings_but_the_seed(tmp_path):
    for seed in (1, 0):
        write_run(tmp_path / f"a{seed}", [1.0], seed=seed, lr=0.001)
        # The default said is the default meant.
        write_run(tmp_path / f"b{seed}", [1.0], seed=seed, lr=0.01, tau=0.01)
    write_run(tmp_path / "deep" / "c", [1.0], seed=0, _train_batch_size_per_learner=64, env_config={"N": 2})
    groups = group_runs(find_runs([tmp_path]))
    labels = {group.label: [run.seed for run in group.runs] for group in groups}
    assert labels == {
        "N=null, lr=0.001, batch=1024 (2 seeds)": [0, 1],
        "N=null, lr=0.01, batch=1024 (2 seeds)": [0, 1],
        "N=2, lr=0.01, batch=64 (1 seed)": [0],
    }
    (same,) = group_runs(find_runs([tmp_path / "b0", tmp_path / "b1", tmp_path / "b0"]))
    assert same.label == "2 seeds"


def test_the_algorithm_is_told_by_the_settings_or_by_tune(tmp_path):
    write_run(tmp_path / "named" / "a", [1.0], algorithm="IDDPG")
    tuned = tmp_path / "tuned"
    write_run(tuned / "b", [1.0], policy_delay=1)
    write_run(tuned / "c", [1.0], policy_delay=2, twin_q=True)
    trial = json.dumps({"stub": False, "trainable_name": "MATD3", "trial_id": "1"})
    (tuned / "experiment_state-2026-01-01_00-00-00.json").write_text(json.dumps({"trial_data": [[trial, "{}"]]}))
    (tuned / "experiment_state-2026-01-02_00-00-00.json").write_text('{"trial_data": [["')  # of a killed driver
    write_run(tmp_path / "others" / "d", [1.0])
    write_run(tmp_path / "others" / "e", [1.0], algorithm="no_such_module:Mine")
    labels = {group.label for group in group_runs(find_runs([tmp_path]))}
    # What its name says of a member is not said again, as `twin_q`.
    assert labels == {
        "algorithm=IDDPG, policy_delay=1 (1 run)",
        "algorithm=MATD3, policy_delay=1 (1 run)",
        "algorithm=MATD3, policy_delay=2 (1 run)",
        "algorithm=MADDPG, policy_delay=1 (1 run)",
        "algorithm=no_such_module:Mine, policy_delay=1 (1 run)",
    }
    assert {group.label for group in group_runs(find_runs([tmp_path / "named", tmp_path / "others" / "d"]))} == {
        "algorithm=IDDPG (1 run)",
        "algorithm=MADDPG (1 run)",
    }


def test_values_come_with_env_steps_and_without_rows_that_lack_them(tmp_path):
    (run,) = find_runs([write_run(tmp_path / "r", [None, 2.0, 3.0])])
    steps, values = read_values(run, TEAM)
    assert (steps.tolist(), values.tolist()) == ([200, 300], [2, 3])
    steps, values = read_values(run, "learners/a/critic_loss")
    assert (steps.tolist(), values.tolist()) == ([100, 200, 300], [0.5, 1.0, 1.5])


def test_the_command_draws_and_prints_the_last_values(tmp_path, capsys):
    for seed, last in enumerate((1.0, 2.0, 6.0)):
        write_run(tmp_path / f"r{seed}", [0.0, last], seed=seed)
    write_run(tmp_path / "long", [0.0, 4.0, 5.0], seed=7)
    out = tmp_path / "new" / "p.png"
    runs = [str(tmp_path / f"r{seed}") for seed in range(3)]
    assert main(["plot", *runs, "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{TEAM}, last values"
    # 3 +- 4.302653 * sqrt(7 / 3) = 3 +- 6.5724
    assert lines[2].split() == ["3", "seeds", "200", "3", "[-3.572,", "9.572]"]
    with Image.open(out) as image:
        assert image.format == "PNG" and image.size[0] == 960
    assert main(["plot", *runs, str(tmp_path / "long"), "--out", str(out)]) == 0
    assert "4 seeds: the mean ends at 200 env steps, where the shortest run does (the longest: 300)." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{tmp}/none"], "none is no folder"),
        (["{tmp}/empty"], "has no progress.csv and no result.json"),
        (["{tmp}/young"], "has no learning curve: no episode has ended in it"),
        (["{tmp}/good", "--smooth", "0"], "--smooth 0 must be at least 1"),
        (["{tmp}/good", "--metric", "learners/a/critic_los"], "Did you mean 'learners/a/critic_loss'? There are: env_runners/"),
        (["{tmp}/bare"], "bare has results, but its params.json cannot be read"),
        (["{tmp}/good", "--out", "{tmp}/good/params.json/x.png"], "cannot be written"),
    ],
)
def test_errors_say_what_is_wrong(words, message, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "young", [None, None])
    write_run(tmp_path / "good", [1.0])
    (write_run(tmp_path / "bare", [1.0]) / "params.json").unlink()
    assert main(["plot", *(word.replace("{tmp}", str(tmp_path)) for word in words)]) == 2
    assert message in capsys.readouterr().err


def test_each_panel_has_each_group_with_its_band():
    x = np.array([0.0, 1000.0])
    banded = MeanCurve(x, x, x - 1, x + 1)
    alone = MeanCurve(x, x, x * math.nan, x * math.nan)
    figure = draw_mean_curves({"team": [banded, alone], "a": [alone, banded]}, ["p", "q"], "title", "y")
    team, agent = figure.axes
    assert [len(team.lines), len(team.collections), len(agent.collections)] == [2, 1, 1]
    assert (team.get_xlabel(), team.get_ylabel(), agent.get_title("left")) == ("env steps", "y", "a")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["p", "q"]
    many = draw_mean_curves({"team": [alone] * 30}, [str(n) for n in range(30)], "title", "y")
    assert not many.legends and len(many.axes[0].lines) == 30
    with pytest.raises(ValueError, match="20 panels are too many"):
        draw_mean_curves({str(n): [alone] for n in range(20)}, ["p"], "title", "y")
