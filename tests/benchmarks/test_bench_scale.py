"""The model of many runners: its arithmetic by hand-made costs, and the measurement for real, but tiny."""

import pytest

from benchmarks import scale
from benchmarks.options import Options
from benchmarks.scale import (
    DOES,
    DRAW,
    HERE,
    LEARNER,
    LONG,
    RUNNER,
    RUNNERS,
    SHARDED,
    SHORT,
    STORE,
    Model,
    measure_scale,
)


def costs(fragment, row, update, broadcast):
    """Of the driver, in seconds, as they are measured."""
    return {SHORT: fragment + SHORT * row, LONG: fragment + LONG * row, "update": update, "broadcast": broadcast}


def test_the_model_by_hand():
    measured = {RUNNER: 1e-4, LEARNER: 5e-3, STORE: 1e-6, DRAW: 4e-4}
    for name, own in ((HERE, costs(1e-3, 2e-6, 1e-3, 64e-4)), (SHARDED, costs(5e-4, 0.0, 2e-4, 0.0))):
        measured |= {scale._cost(name, what): value for what, value in own.items()}
    # Fragments of 200 rows, batches of 1000 rows of 500 bytes.
    model = Model(measured, Options(num_envs=8, batch=1000), row_bytes=500)
    assert RUNNERS == 64 and set(model.busy) == set(DOES)
    busy = {
        # 1 ms / 200, 2 us, 6.4 ms / (64 * 200); 1 ms / 100
        f"driver, collecting only, {HERE}": 5e-6 + 2e-6 + 0.5e-6,
        f"driver, {HERE}": 7.5e-6 + 10e-6,
        f"driver, collecting only, {SHARDED}": 2.5e-6,
        f"driver, {SHARDED}": 2.5e-6 + 2e-6,
        f"driver, long fragments, {HERE}": 1e-3 / 800 + 2e-6 + 64e-4 / (64 * 800) + 10e-6,
        "the Learner": 5e-5,
        "a replay shard, if it were the only one": 1e-6 + 4e-6,
        "the Learner's port of 10 Gbit/s": 500 * 10 / 1.25e9,
    }
    for place, seconds in busy.items():
        assert model.busy[place] == pytest.approx(seconds), place
    # A runner makes 10,000 env steps/s, so the Learner is busy with two and would need 32 times its time with 64.
    assert model.runners("the Learner") == pytest.approx(2) and model.load("the Learner", 64) == pytest.approx(32)
    assert model.runners(f"driver, {HERE}") == pytest.approx(1e-4 / 17.5e-6)


@pytest.mark.slow
def test_the_measurement(ray_session):
    options = Options(repeats=1, seconds=0.0, num_envs=2, batch=32, rows=200)
    what, limits, busy_64, busy_1024 = measure_scale("simple_spread", options)
    assert len(what["rows"]) == 12 and all(row["median"] > 0 for row in what["rows"])
    assert [row["name"] for row in limits["rows"]] == [row["name"] for row in busy_64["rows"]] == list(DOES)
    for limit, small, large in zip(limits["rows"], busy_64["rows"], busy_1024["rows"], strict=True):
        assert small["median"] == pytest.approx(64 / limit["median"])
        assert large["median"] == pytest.approx(1024 / limit["median"])
