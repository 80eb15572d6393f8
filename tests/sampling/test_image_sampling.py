"""Images on their way from the env into rows, in both loops, and into recordings."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from image_env import SHAPES, ImageEnv
from runners import make_runner, rows_of

BOTH = pytest.mark.parametrize("fast", [False, True])


@BOTH
def test_rows_hold_the_images_row_by_row(fast):
    runner = make_runner(ImageEnv, fast=fast)
    columns = rows_of([runner.sample(num_timesteps=5, explore=True)[0] for _ in range(5)])
    seen = runner.env.envs[0].unwrapped.seen
    for row, (episode, t) in enumerate(zip(columns["episodes"][:, 0], columns["t"][:, 0], strict=True)):
        now, then = seen[episode][t], seen[episode][t + 1]
        for slot in runner.layout.slots:
            # Who dies is seen once more.
            was = now if slot.agent != "b" or "b" in then else {}
            for name, images in (("obs", was), ("new_obs", then)):
                expected = images.get(slot.agent, np.zeros(SHAPES[slot.agent])).ravel()
                np.testing.assert_array_equal(columns[name][row, slot.obs], expected, err_msg=f"{row} {slot.agent} {name}")
    assert columns["alive"].mean(0).min() > 0 and row == 24
    runner.stop()


@BOTH
@pytest.mark.parametrize(("add", "shown"), [(0.5, r"\.5"), (1000, ""), (-1000, "-"), (np.nan, "nan")])
def test_images_that_are_no_bytes_are_refused(fast, add, shown):
    """They are what the actor sees; rows would have other numbers."""
    runner = make_runner(ImageEnv, {"dtype": "float64", "add": add}, fast=fast)
    text = rf"Agent '[ac]': observation is .*{shown}.*: an image of uint8 has whole numbers from 0 to 255"
    with pytest.raises(ValueError, match=r"(?s)" + text):
        for _ in range(2):
            rollout = runner.sample(num_timesteps=5, explore=True)[0]
            if rollout.error:
                raise ValueError(rollout.error)
    runner.stop()


@BOTH
def test_floats_that_are_bytes_do(fast):
    runners = [make_runner(ImageEnv, {"dtype": dtype}, fast=fast) for dtype in ("float32", "uint8")]
    one, two = (rows_of([runner.sample(num_timesteps=9, explore=True)[0]]) for runner in runners)
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name])
    for runner in runners:
        runner.stop()


@BOTH
def test_recordings_have_them_as_bytes(tmp_path, fast):
    runner = make_runner(ImageEnv, fast=fast, change=lambda c: c.offline_data(output=str(tmp_path)))
    columns = rows_of([runner.sample(num_timesteps=12, explore=True)[0]])
    runner.stop()
    table = pq.read_table(tmp_path / "training")
    for slot in runner.layout.slots:
        for name, recorded in (("obs", "obs"), ("new_obs", "next_obs")):
            values = table[f"{slot.agent}/{recorded}"].combine_chunks()
            assert str(values.type) == f"fixed_size_list<element: uint8>[{np.prod(SHAPES[slot.agent])}]"
            np.testing.assert_array_equal(values.values.to_numpy().reshape(len(table), -1), columns[name][:, slot.obs])
