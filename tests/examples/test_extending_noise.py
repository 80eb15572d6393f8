"""An exploration noise from outside the package: its numbers, and a run with it that is saved, resumed and spread out."""

import functools
import re
import subprocess
import sys

import numpy as np
import pytest
from paths import EXTENDING
from ray import tune
from runners import make_runner, rows_of

sys.path.insert(0, str(EXTENDING))

from exploration_noise import ColoredNoise, make_config

CONTINUOUS = {"continuous_actions": True}


def small_config(**settings):
    config = make_config(seed=3).training(
        train_batch_size_per_learner=32, num_steps_sampled_before_learning_starts=100, **settings
    )
    config.env_runners(num_envs_per_env_runner=2, rollout_fragment_length=25)
    return config.reporting(min_sample_timesteps_per_iteration=150)


def test_the_filter_by_hand():
    """h = 1, 1/2, 3/8, 5/16 for beta=1; 1, 1, 1, 1 for beta=2; 1, 0, 0, 0 for beta=0; divided by their length."""
    for beta, h in ((1.0, [1, 1 / 2, 3 / 8, 5 / 16]), (2.0, [1, 1, 1, 1]), (0.0, [1, 0, 0, 0])):
        noise = ColoredNoise(2, 1, beta, memory=4)
        impulse = np.float32([[1.0]])
        given = [noise.next([1], impulse * (t == 0)).item() for t in range(5)]
        np.testing.assert_allclose(given, [*np.array(h) / np.linalg.norm(h), 0.0], rtol=1e-6)
    noise = ColoredNoise(2, 2, 1.0, memory=3)
    length = np.sqrt(1 + 1 / 4 + 9 / 64)
    np.testing.assert_allclose(noise.next([0, 1], np.float32([[2, 4], [6, 8]])), np.array([[2, 4], [6, 8]]) / length, rtol=1e-6)
    noise.begin_episode(1)
    given = noise.next([0, 1], np.float32([[1, 1], [1, 1]]))
    np.testing.assert_allclose(given, np.array([[1 + 1, 1 + 2], [1, 1]]) / length, rtol=1e-6)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("noise_type", [ColoredNoise, "exploration_noise.ColoredNoise"])
def test_rows_hold_what_the_noise_says(fast, noise_type):
    settings = {"noise_scale": 0.2, "num_steps_sampled_before_learning_starts": 0}
    runner = make_runner("simple_spread", CONTINUOUS, 2, fast=fast, noise_type=noise_type, **settings)
    rows = rows_of([runner.sample(num_timesteps=2, explore=True)[0] for _ in range(25)])
    still = make_runner("simple_spread", CONTINUOUS, 2, fast=fast, noise_type="none", **settings)
    greedy = still.sample(num_timesteps=2, explore=True)[0].columns["actions"]
    expected, width = [], runner.layout.action_dim
    for env in range(2):
        rng = runner._seeds.of_noise(env, 0)
        rng.random((32, width), np.float32)
        normal, noise = rng.standard_normal((32, width), np.float32), ColoredNoise(1, width)
        expected.append([noise.next([0], normal[t : t + 1])[0] for t in range(25)])
    # Both act on the same first observation.
    for env in range(2):
        np.testing.assert_allclose(rows["actions"][env], np.clip(greedy[env] + 0.2 * expected[env][0], -1, 1), atol=1e-6)
    # Later ones: the runner's own noise object has seen just this.
    past = runner.exploration.noise.noise.past
    np.testing.assert_allclose(np.einsum("k,ekw->ew", ColoredNoise(1, 1).filter, past), [e[24] for e in expected], atol=1e-5)


@pytest.mark.usefixtures("ray_session")
def test_a_resumed_run_meets_the_same_noise(build, tmp_path):
    straight, halfway = build(small_config()), build(small_config())
    for algo in (straight, halfway):
        algo.train()
    path = halfway.save_to_path(str(tmp_path / "half"))
    resumed = build(small_config())
    resumed.restore_from_path(path)
    for algo in (straight, resumed):
        algo.train()
    rows, others = (algo.replay_buffer.get_state()["columns"] for algo in (straight, resumed))
    assert len(rows["actions"]) == 300
    for name, column in rows.items():
        np.testing.assert_array_equal(column, others[name], err_msg=name)
    for module_id, state in straight.get_weights().items():
        for name, value in state.items():
            np.testing.assert_array_equal(value, resumed.get_weights()[module_id][name], err_msg=f"{module_id}/{name}")


@pytest.mark.usefixtures("ray_session")
def test_remote_runners_have_noise_of_their_own(build):
    algo = build(small_config().env_runners(num_env_runners=2))
    result = algo.train()
    assert result["num_env_steps_sampled_lifetime"] >= 150
    past = algo.env_runner_group.foreach_env_runner(lambda r: r.exploration.noise.noise.past, local_env_runner=False)
    assert [array.shape for array in past] == [(2, 50, 15)] * 2
    # Each env of each runner has drawn other numbers.
    newest = np.concatenate([array[:, 0] for array in past])
    assert len(np.unique(newest, axis=0)) == 4 and np.abs(newest).min() > 0.0


@pytest.mark.usefixtures("ray_session")
def test_two_learners_meet_the_same_noise(build):
    """It belongs to the games, not to who learns from them."""
    algos = [build(small_config().learners(num_learners=number)) for number in (0, 2)]
    for algo in algos:
        algo.train()
    one, two = (algo.env_runner.exploration.noise.noise.past for algo in algos)
    assert one.shape == (2, 50, 15) and np.abs(one).sum() > 0.0
    np.testing.assert_array_equal(one, two)


@pytest.mark.usefixtures("ray_session")
def test_tune_goes_over_its_parameters(tmp_path):
    noises = [functools.partial(ColoredNoise, beta=beta) for beta in (0.0, 2.0)]
    config = small_config().training(noise_type=tune.grid_search(noises)).to_dict()
    analysis = tune.run("MADDPG", config=config, stop={"training_iteration": 1}, storage_path=str(tmp_path), verbose=0)
    assert [trial.status for trial in analysis.trials] == ["TERMINATED"] * 2
    assert sorted(trial.config["noise_type"].keywords["beta"] for trial in analysis.trials) == [0.0, 2.0]
    returns = [trial.last_result["env_runners"]["episode_return_mean"] for trial in analysis.trials]
    assert returns[0] != returns[1]  # of one seed


@pytest.mark.usefixtures("ray_session")
def test_a_noise_that_fails_on_a_remote_runner_stops_the_run_by_name(build):
    config = small_config(noise_type="exploration_noise.ColoredNoise").env_runners(num_env_runners=1)
    algo = build(config)

    def spoil(runner):
        runner.exploration.noise.noise.filter[:] = np.nan

    algo.env_runner_group.foreach_env_runner(spoil, local_env_runner=False)
    with pytest.raises(ValueError, match="ColoredNoise: `next` returned nan, and noise must be finite"):
        for _ in range(3):
            algo.train()


@pytest.mark.slow
@pytest.mark.ray
def test_it_runs_as_a_script():
    command = [sys.executable, str(EXTENDING / "exploration_noise.py"), "--env-steps", "2000", "--beta", "0.5"]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=500).stdout
    returns = re.findall(r"^ *(\d+) env steps: return (-?[\d.]+)$", out, re.MULTILINE)
    assert [int(steps) for steps, _ in returns] == [1000, 2000]
    assert all(-200.0 < float(value) < -10.0 for _, value in returns)
