"""Noise: its sizes, its memory, its schedules, and that envs do not share a stream."""

import gymnasium as gym
import numpy as np
import pytest

from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.sampling.exploration import JointExploration

LAYOUT = JointLayout(
    {a: gym.spaces.Box(-1, 1, (1,)) for a in "ab"},
    {"a": gym.spaces.Box(-1.0, 1.0, (2,)), "b": gym.spaces.Discrete(3)},
    str,
)


def make(num_envs=1, **settings):
    return JointExploration(LAYOUT, num_envs, generators=lambda env, episode: np.random.default_rng(env + episode), **settings)


def run(exploration, steps, envs=(0,), t0=0):
    zero = np.zeros((len(envs), LAYOUT.action_dim), np.float32)
    exploration.env_steps = t0
    return np.stack([exploration.act(list(envs), zero) for _ in range(steps)])


def test_gaussian_noise_has_the_scale_and_no_memory():
    noise = run(make(noise_scale=0.2), 20_000)[:, 0, :2]
    assert noise.std() == pytest.approx(0.2, rel=0.02) and abs(noise.mean()) < 0.005
    assert abs(np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1]) < 0.03


def test_ornstein_uhlenbeck_has_its_stationary_spread_and_memory():
    """x' = (1 - theta) x + sigma n: variance sigma^2 / (1 - (1 - theta)^2), correlation 1 - theta."""
    noise = run(make(noise_type="ornstein_uhlenbeck", noise_scale=1.0, ou_theta=0.5, ou_sigma=0.2), 40_000)[:, 0, :2]
    assert noise.std() == pytest.approx(0.2 / np.sqrt(1 - 0.25), rel=0.03)
    assert np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1] == pytest.approx(0.5, abs=0.02)


def test_ornstein_uhlenbeck_starts_over_in_the_env_whose_episode_ended():
    exploration = make(2, noise_type="ornstein_uhlenbeck", noise_scale=1.0, ou_theta=0.0, ou_sigma=0.1)
    run(exploration, 50, (0, 1))
    assert np.abs(exploration.noise.state).min() > 0
    before = exploration.noise.state[0].copy()
    exploration.begin_episode(1, 6)
    first = run(exploration, 1, (1,))[0, 0, :2]
    rng = np.random.default_rng(7)
    rng.random((32, 5), np.float32)
    # Without pull it is sigma times the first normal numbers of the new episode.
    np.testing.assert_allclose(first, 0.1 * rng.standard_normal((32, 5), np.float32)[0, :2], rtol=1e-6)
    np.testing.assert_array_equal(exploration.noise.state[0], before)


def test_an_envs_noise_does_not_depend_on_the_others():
    both, alone = make(2), make(2)
    one = run(both, 10, (0, 1))[:, 1]
    two = run(alone, 10, (1,))[:, 0]
    np.testing.assert_array_equal(one, two)


def test_an_episodes_noise_does_not_depend_on_the_one_before():
    second, alone = make(), make()
    run(second, 5)
    for exploration in (second, alone):
        exploration.begin_episode(0, 9)
    np.testing.assert_array_equal(run(second, 40), run(alone, 40))


def test_schedules_move_with_every_env_step():
    exploration = make(noise_scale=[[0, 1.0], [100, 0.0]])
    run(exploration, 1, t0=25)
    assert exploration._noise_scale.get_current_value() == pytest.approx(0.75)
    codes = run(exploration, 1, t0=100)[0, 0, :2]
    assert not codes.any()


def test_random_steps_are_uniform_then_the_actor_acts():
    exploration = make(noise_type="none", random_steps=5000)
    codes = run(exploration, 5000)[:, 0]
    assert codes[:, :2].std() == pytest.approx(1 / np.sqrt(3), rel=0.02) and np.abs(codes[:, :2]).max() <= 1
    np.testing.assert_allclose(codes[:, 2:].mean(0), 1 / 3, atol=0.03)
    assert not run(exploration, 3, t0=5000)[:, 0, :2].any()


def test_temperature_near_zero_is_greedy():
    exploration = make(temperature=1e-6)
    output = np.float32([[0, 0, 0.1, 0.3, 0.2]])
    codes = np.stack([exploration.act([0], output)[0] for _ in range(50)])
    assert (codes[:, 3] == 1).all()


def test_the_clock_goes_on_with_the_envs_that_act():
    exploration = make(3, env_steps=10, env_steps_per_act=4)
    zero = np.zeros((2, LAYOUT.action_dim), np.float32)
    exploration.act([0, 2], zero)
    exploration.act([1, 2], zero)
    assert exploration.env_steps == 10 + 2 * 2 * 4


def test_it_follows_episodes_that_nobody_has_announced():
    followed, told = make(2), make(2)
    followed.follow([3, 4])
    told.begin_episode(0, 3)
    told.begin_episode(1, 4)
    np.testing.assert_array_equal(run(followed, 5, (0, 1)), run(told, 5, (0, 1)))
    followed.follow([3, 8])  # only the second env has another one
    told.begin_episode(1, 8)
    np.testing.assert_array_equal(run(followed, 40, (0, 1)), run(told, 40, (0, 1)))
    followed.follow([3, 8, 5])  # another number of envs: all begin
    fresh = make(3)
    for env, episode in enumerate((3, 8, 5)):
        fresh.begin_episode(env, episode)
    np.testing.assert_array_equal(run(followed, 5, (0, 1, 2)), run(fresh, 5, (0, 1, 2)))
