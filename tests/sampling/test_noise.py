"""Noise classes: their numbers by hand, what is refused before a run, and what is told of one that fails later."""

import functools
import pickle

import gymnasium as gym
import numpy as np
import pytest
from runners import make_runner, rows_of

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.sampling.exploration import JointExploration
from rllib_maddpg.sampling.noise import GaussianNoise, Noise, NoNoise, OrnsteinUhlenbeckNoise, make_noise

CONTINUOUS = {"continuous_actions": True}
SETTINGS = {"ou_theta": 0.5, "ou_sigma": 0.2}
NORMAL = np.float32([[1.0, -2.0, 0.5]])


class Counting(Noise):
    """Adds 0.01 for each step of an episode."""

    def __init__(self, num_envs, width):
        super().__init__(num_envs, width)
        self.steps = np.zeros((num_envs, 1), np.float32)

    def begin_episode(self, env):
        self.steps[env] = 0

    def next(self, envs, normal):
        self.steps[envs] += 1
        return np.repeat(0.01 * self.steps[envs], self.width, 1)


class Tuned(Counting):
    settings = ("ou_theta",)

    def __init__(self, num_envs, width, ou_theta):
        super().__init__(num_envs, width)
        self.ou_theta = ou_theta


class BreaksLater(Counting):
    """As its subclasses give it from the tenth step on."""

    late = None

    def next(self, envs, normal):
        values = super().next(envs, normal)
        return values if self.steps.max() < 10 else self.late(values)


class TurnsNaN(BreaksLater):
    late = staticmethod(lambda values: values * np.nan)


class Shrinks(BreaksLater):
    late = staticmethod(lambda values: values[:, :1])


class Raises(BreaksLater):
    @staticmethod
    def late(values):
        raise IndexError("out of pink")


def test_ours_by_hand():
    assert isinstance(make_noise("gaussian", 1, 3, SETTINGS), GaussianNoise)
    np.testing.assert_array_equal(make_noise("gaussian", 1, 3, SETTINGS).next([0], NORMAL.copy()), NORMAL)
    assert isinstance(make_noise("none", 1, 3, SETTINGS), NoNoise)
    assert make_noise("none", 1, 3, SETTINGS).next([0], NORMAL) is None
    noise = make_noise("ornstein_uhlenbeck", 2, 3, SETTINGS)
    assert (noise.theta, noise.sigma) == (0.5, 0.2)
    np.testing.assert_allclose(noise.next([1], NORMAL), [[0.2, -0.4, 0.1]], rtol=1e-6)
    # 0.5 x + 0.2 n in one env, 0.2 n in the other.
    both = noise.next([0, 1], np.concatenate([NORMAL, NORMAL]))
    np.testing.assert_allclose(both, [[0.2, -0.4, 0.1], [0.3, -0.6, 0.15]], rtol=1e-6)
    noise.begin_episode(1)
    np.testing.assert_array_equal(noise.state[1], 0.0)
    np.testing.assert_allclose(noise.state[0], [0.2, -0.4, 0.1], rtol=1e-6)


def test_a_class_gets_the_settings_that_it_names_and_a_partial_wins():
    assert make_noise(Tuned, 1, 3, SETTINGS).noise.ou_theta == 0.5
    assert make_noise(functools.partial(Tuned, ou_theta=0.7), 1, 3, SETTINGS).noise.ou_theta == 0.7
    noise = make_noise(functools.partial(OrnsteinUhlenbeckNoise, ou_sigma=1.5), 1, 3, SETTINGS).noise
    assert (noise.theta, noise.sigma) == (0.5, 1.5)
    assert isinstance(make_noise(f"{__name__}.Counting", 1, 3, SETTINGS).noise, Counting)


@pytest.mark.parametrize("fast", [True, False], ids=["columns", "stock"])
def test_a_users_noise_is_added_in_both_loops(fast):
    settings = {"num_steps_sampled_before_learning_starts": 0, "noise_scale": 1.0}
    runner = make_runner("simple_spread", {**CONTINUOUS, "max_cycles": 5}, 2, fast=fast, noise_type=Counting, **settings)
    with_noise = rows_of([runner.sample(num_timesteps=2, explore=True)[0] for _ in range(20)])
    assert len(with_noise["actions"]) >= 30
    mu = np.concatenate(
        [
            np.tanh(runner.module[slot.module].actor(as_tensor(with_noise["obs"][:, slot.obs])).detach().numpy())
            for slot in runner.layout.slots
        ],
        1,
    )
    noise = np.round((with_noise["actions"] - mu).mean(1), 4)
    # Both envs side by side; an episode has five steps.
    count = 0.01 * (np.arange(len(noise)) // 2 % 5 + 1)
    np.testing.assert_allclose(noise, count, atol=1e-4)


def as_tensor(array):
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))


def test_an_exploration_goes_on_from_a_pickle():
    """It is an object with a state, and knows neither runner nor env."""
    settings = {"noise_type": "ornstein_uhlenbeck", "num_steps_sampled_before_learning_starts": 0}
    runner = make_runner("simple_spread", CONTINUOUS, 2, **settings)
    runner.sample(num_timesteps=40)
    copy = pickle.loads(pickle.dumps(runner.exploration))
    assert copy.env_steps == runner.exploration.env_steps == 40
    outputs = np.zeros((2, 15), np.float32)
    for _ in range(40):  # beyond the numbers that are drawn already
        np.testing.assert_array_equal(copy.act([0, 1], outputs), runner.exploration.act([0, 1], outputs))


@pytest.mark.parametrize("fast", [True, False], ids=["columns", "stock"])
@pytest.mark.parametrize(
    ("noise_type", "text"),
    [
        (TurnsNaN, "TurnsNaN: `next` returned nan, and noise must be finite."),
        (Shrinks, "Shrinks: `next` returned float32 [2, 1], not float32 [2, 15] (envs that act now, width)."),
        (Raises, "Raises: `next` raised IndexError: out of pink"),
    ],
)
def test_a_noise_that_fails_later_ends_the_sampling_by_name(noise_type, text, fast):
    runner = make_runner("simple_spread", CONTINUOUS, 2, fast=fast, noise_type=noise_type)
    (rollout,) = runner.sample(num_timesteps=10, explore=True)
    assert not rollout.error and rollout.env_steps() == 10
    (rollout,) = runner.sample(num_timesteps=40, explore=True)
    assert rollout.error == text
    assert rollout.env_steps() == 0
    # It goes on with new episodes.
    (rollout,) = runner.sample(num_timesteps=10, explore=True)
    assert not rollout.error and runner.episode_numbers == [2, 2]


class NoNext(Noise):
    pass


class NoInterface:
    pass


class WantsMore(Noise):
    def __init__(self, num_envs, width, beta):
        raise AssertionError

    def next(self, envs, normal):
        return normal


class UnknownSetting(Counting):
    settings = ("tau",)


class Infinite(Noise):
    def next(self, envs, normal):
        return normal.astype(float) * 1e300


class List(Noise):
    def next(self, envs, normal):
        return normal.tolist()


class Whole(Noise):
    def next(self, envs, normal):
        return normal.astype(int)


class AllEnvs(Noise):
    def next(self, envs, normal):
        return np.zeros((self.num_envs, self.width), np.float32)


@pytest.mark.parametrize(
    ("noise_type", "text"),
    [
        ("pink", "one of ['gaussian', 'ornstein_uhlenbeck', 'none'], a class"),
        ("nowhere.to.be.Found", "there is no noise 'nowhere.to.be.Found': There is no module 'nowhere': correct the path"),
        (
            "rllib_maddpg.sampling.noise.Pink",
            "Module 'rllib_maddpg.sampling.noise' has no 'Pink'. Its classes are ['Noise', 'NoNoise', ",
        ),
        ("numpy.pi", "3.141592653589793 is a float, not a class"),
        ("math.cos", "cos is a builtin_function_or_method, not a class"),
        (".", "'.' is no path of the form 'package.module.Class'"),
        ("..x.y", "Module '..x' cannot be imported (TypeError"),
        ("", "one of ['gaussian'"),
        (None, "one of ['gaussian'"),
        (3, "one of ['gaussian'"),
        (["gaussian"], "one of ['gaussian'"),
        (OrnsteinUhlenbeckNoise(1, 1), "one of ['gaussian'"),
        (lambda num_envs, width: Counting(num_envs, width), "one of ['gaussian'"),
        (functools.partial(np.cos, 1.0), "is a ufunc, not a class"),
        (NoInterface, "NoInterface has no method `begin_episode`. Derive it from `rllib_maddpg.sampling.noise.Noise`"),
        (NoNext, "NoNext has no `next` of its own"),
        (Noise, "Noise has no `next` of its own"),
        (
            WantsMore,
            "WantsMore(num_envs, width) raised TypeError: WantsMore.__init__() missing 1 required",
        ),
        (functools.partial(Counting, beta=1.0), "Counting(num_envs, width) raised TypeError"),
        (functools.partial(Counting, 1), "Counting(num_envs, width) raised TypeError"),
        (UnknownSetting, "UnknownSetting: `settings` has 'tau'; it can have ['ou_sigma', 'ou_theta']"),
        (Infinite, "Infinite: `next` returned inf, and noise must be finite"),
        (List, "List: `next` returned a list, not float32 [2, 3]"),
        (Whole, "Whole: `next` returned int64 [2, 3], not float32 [2, 3]"),
        (AllEnvs, "AllEnvs: `next` returned float32 [2, 3], not float32 [1, 3]"),
    ],
)
def test_what_is_no_noise_is_refused_before_an_actor_starts(noise_type, text):
    config = MADDPGConfig().environment("simple_spread", env_config=CONTINUOUS).training(noise_type=noise_type)
    with pytest.raises(ValueError) as error:
        config.validate()
    assert str(error.value).startswith("`noise_type`=") and text in str(error.value)


def test_settings_of_checkpoints_from_before_noise_was_a_class():
    """The connector's checkpoints hold these words; a run's clock is where it was saved."""
    old = {
        "noise_type": "ornstein_uhlenbeck",
        "noise_scale": [[0, 1.0], [100, 0.5]],
        "ou_theta": 0.0,
        "ou_sigma": 0.1,
        "temperature": 1.0,
        "random_steps": 10,
    }
    layout = JointLayout({"a": gym.spaces.Box(-1, 1, (1,))}, {"a": gym.spaces.Box(-1.0, 1.0, (2,))}, str)
    generators = lambda env, episode: np.random.default_rng(5)  # noqa: E731
    exploration = JointExploration(layout, 1, generators=generators, env_steps=100, env_steps_per_act=0, **old)
    rng = np.random.default_rng(5)
    rng.random((32, 2), np.float32)
    normal = rng.standard_normal((32, 2), np.float32)
    for t in range(3):
        code = exploration.act([0], np.zeros((1, 2), np.float32))
        np.testing.assert_allclose(code[0], 0.5 * 0.1 * normal[: t + 1].sum(0), atol=1e-6)
    assert exploration.env_steps == 100


class TooWide(Counting):
    """Serves three numbers only."""

    def __init__(self, num_envs, width):
        assert width == 3, f"{width} numbers"
        super().__init__(num_envs, width)


def test_a_noise_is_tried_with_the_sizes_of_the_game():
    config = MADDPGConfig().environment("simple_spread", env_config=CONTINUOUS).training(noise_type=TooWide)
    with pytest.raises(ValueError, match=r"^`noise_type`=.*TooWide\(num_envs, width\) raised AssertionError: 15 numbers"):
        config.validate()


class Greedy(Counting):
    """Empties the list that it is given."""

    def next(self, envs, normal):
        noise = super().next(envs, normal)
        envs.clear()
        return noise


def test_a_noise_cannot_change_which_envs_act():
    noise = make_noise(Greedy, 2, 3, SETTINGS)
    envs = [0, 1]
    noise.next(envs, np.zeros((2, 3), np.float32))
    assert envs == [0, 1]
