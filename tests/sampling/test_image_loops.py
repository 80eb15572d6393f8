"""Rows of images are those that agents saw, in the columnar loop and in RLlib's own."""

import numpy as np
import pytest
import torch
from pairs_game import PairsGame
from runners import make_runner, rows_of

from rllib_maddpg.sampling.fast_path import reason_for_stock_path

# The frame stack writes on into what it has given: whoever keeps an observation must have made a copy.
PISTONS = {
    "n_pistons": 6,
    "max_cycles": 6,
    "wrappers": [
        ["color_reduction_v0", {"mode": "R"}],
        ["resize_v1", {"x_size": 6, "y_size": 20, "linear_interp": True}],
        ["frame_stack_v2", {"stack_size": 2}],
    ],
}
# With the number of agents and the shape of an image.
GAMES = {
    "pistonball": ("butterfly/pistonball_v6", PISTONS, 6, (20, 6, 2)),
    "deaths": (PairsGame, {"images": True, "deaths": True}, 3, (4, 5, 2)),
}


def made(game: str, fast: bool):
    env, env_config, agents, shape = GAMES[game]
    # A small buffer, since `validate()` asks whether a full one would fit into the memory that is free just now.
    replay = {"capacity": 2000}
    runner = make_runner(env, env_config, fast=fast, num_steps_sampled_before_learning_starts=0, replay_buffer_config=replay)
    assert bool(reason_for_stock_path(runner)) != fast
    assert [slot.image for slot in runner.layout.slots] == [shape] * agents
    return runner


def within_episodes(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Which rows go on where the one before them ended."""
    numbers = columns["episodes"][:, 0]
    return numbers[1:] == numbers[:-1]


@pytest.mark.parametrize("game", GAMES)
def test_both_loops_give_the_same_rows(game):
    """With actions that are drawn: those of actors differ by rounding, and pixels are whole numbers."""
    rows = []
    for fast in (True, False):
        runner = made(game, fast)
        rows.append(rows_of([runner.sample(num_timesteps=5, random_actions=True)[0] for _ in range(4)]))
        runner.stop()
    ours, rllibs = rows
    for name, column in ours.items():
        np.testing.assert_array_equal(column, rllibs[name], err_msg=name)
    assert len(ours["obs"]) == 20 and ours["obs"].dtype == ours["new_obs"].dtype == np.uint8
    goes_on = within_episodes(ours)
    alive = np.repeat(ours["alive"], np.prod(GAMES[game][3]), 1)[1:].astype(np.uint8)
    np.testing.assert_array_equal((ours["new_obs"][:-1] * alive)[goes_on], ours["obs"][1:][goes_on])
    assert goes_on.sum() >= 10 and (ours["new_obs"] != ours["obs"]).any(1).sum() >= 15
    if game == "pistonball":
        frames = ours["obs"].reshape(20, 6, 20, 6, 2)
        np.testing.assert_array_equal(frames[1:, ..., 0][goes_on], frames[:-1, ..., 1][goes_on])


@pytest.mark.parametrize("fast", [True, False])
def test_actors_act_on_the_images_of_the_rows(fast):
    """1e-5 in float32."""
    runner = made("pistonball", fast)
    columns = runner.sample(num_timesteps=8, explore=False)[0].columns
    for slot in runner.layout.slots:
        seen = torch.from_numpy(columns["obs"][:, slot.obs].astype(np.float32))
        with torch.no_grad():
            expected = torch.tanh(runner.module[slot.module].unwrapped().actor(seen)).numpy()
        np.testing.assert_allclose(columns["actions"][:, slot.actions], expected, rtol=1e-5, atol=1e-5)
    assert len(np.unique(columns["actions"])) > 20
    runner.stop()
