"""PettingZoo's games of images: what agents see is the game, through SuperSuit's wrappers, too."""

from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest

from rllib_maddpg.envs import resolve_env

SMALL = [["color_reduction_v0", {"mode": "R"}], ["resize_v1", {"x_size": 12, "y_size": 40, "linear_interp": True}]]


def images_of(name, steps, agent, **config):
    """What an agent sees in an episode of random actions, `[steps + 1, H, W, C]`."""
    env = resolve_env(name)(config)
    observations, _ = env.reset(seed=0)
    space = env.observation_spaces[agent]
    assert isinstance(space, gym.spaces.Box) and space.dtype == np.uint8
    seen = [observations[agent].copy()]  # SuperSuit's frame stack writes on into what it has given
    for k, own in enumerate(env.action_spaces.values()):
        own.seed(k)
    for _ in range(steps):
        observations = env.step({a: env.action_spaces[a].sample() for a in observations})[0]
        seen.append(observations[agent].copy())
    assert all(image.shape == space.shape and image.dtype == np.uint8 for image in seen)
    return np.stack(seen)


@pytest.mark.parametrize(
    ("name", "agent", "shape", "config"),
    [
        ("butterfly/pistonball_v6", "piston_3", (457, 120, 3), {"n_pistons": 4}),
        ("butterfly/cooperative_pong", "paddle_0", (280, 480, 3), {}),
    ],
)
def test_games_that_draw_only_where_somebody_looks_on_are_drawn(name, agent, shape, config):
    """Without a `render_mode` of ours nothing moves in them, and no ball is to be seen."""
    seen = images_of(name, 8, agent, **config)
    assert seen.shape[1:] == shape
    assert all((one != other).any() for one, other in pairwise(seen))


def test_wrappers_of_images():
    """Frames of two steps side by side: the older one is the newer one of the step before."""
    seen = images_of(
        "butterfly/pistonball_v6", 3, "piston_3", n_pistons=4, wrappers=[*SMALL, ["frame_stack_v2", {"stack_size": 2}]]
    )
    assert seen.shape == (4, 40, 12, 2)
    np.testing.assert_array_equal(seen[1:, ..., 0], seen[:-1, ..., 1])
    single = images_of(
        "butterfly/pistonball_v6", 3, "piston_3", n_pistons=4, wrappers=[*SMALL, ["reshape_v0", {"shape": (40, 12, 1)}]]
    )
    np.testing.assert_array_equal(single[..., 0], seen[..., 1])


def test_knights_and_archers_see_images():
    seen = images_of(
        "butterfly/knights_archers_zombies",
        3,
        "archer_0",
        obs_method="image",
        wrappers=[["resize_v1", {"x_size": 32, "y_size": 24}]],
    )
    assert seen.shape == (4, 24, 32, 3) and seen.max() > 0
