"""What is measured of a shared Learner: its arithmetic by hand, and for real, but tiny. No speed is asserted."""

import json
import re
from dataclasses import replace

import pytest

from benchmarks import shared, slots
from benchmarks.compare import Contender
from benchmarks.drawn_update import DifferentArithmetic
from benchmarks.games import built, fill, make_config
from benchmarks.options import Options
from benchmarks.scaling import ENV_STEPS, UPDATES
from benchmarks.shared import OWN, SHARED, measure_shared, own_config, shared_config
from benchmarks.slots import MOST, PASS, SINGLE, WHOLE, Sizes, Slots, measure_slots
from benchmarks.trials import rates
from rllib_maddpg.cli.program import main

TINY = Options(repeats=1, seconds=0.0, num_envs=2, batch=32, rows=300, trials=2)


def test_only_what_lies_in_the_window_counts():
    # 100 env steps a second and an update each 50; the other one twice as quick, but it has not begun when the window does.
    one = [(t, 1000 + 100 * t, 2 * t) for t in range(0, 11, 2)]
    other = [(5.0, 0, 0), (7.0, 400, 8), (9.0, 800, 16)]
    assert rates([one], 3.0, 7.0) == pytest.approx({ENV_STEPS: 100.0, UPDATES: 2.0})
    assert rates([one, other], 3.0, 7.0) == pytest.approx({ENV_STEPS: 100.0 + 100.0, UPDATES: 2.0 + 2.0})


def test_bars():
    rounds = {OWN: [{ENV_STEPS: 100.0, UPDATES: 10.0}], SHARED: [{ENV_STEPS: 94.0, UPDATES: 50.0}]}
    made = {}
    for device in ("cpu", "cuda"):
        for env_steps, unit in shared.COMPARED.items():
            table = shared._table("simple_spread", replace(TINY, device=device), env_steps, unit, rounds, [])
            (claim,) = table["claims"]
            made[device, env_steps] = claim["value"], claim["limit"], claim["met"]
    assert made == {
        ("cpu", 100): (0.94, 0.95, False),
        ("cpu", 10): (5.0, None, None),
        ("cuda", 100): (0.94, None, None),
        ("cuda", 10): (5.0, 5.0, True),
    }
    found = {PASS: [[1.0], [8.1]], WHOLE: [[2.0], [20.0]], SINGLE: [[2.0], [130.0]]}
    for device, limit in (("cpu", None), ("cuda", 8.0)):
        claims = slots._ends("", replace(TINY, device=device), (1, MOST), found, [])["claims"]
        assert [c["value"] for c in claims] == pytest.approx([8.1, 10.0, 6.5])
        assert [c["limit"] for c in claims] == [limit, None, None]
    # Fewer slots than the bar is about.
    assert slots._ends("", replace(TINY, device="cuda"), (1, 2), found, [])["claims"][0]["limit"] is None


def test_configs_of_both_kinds():
    gpu = replace(TINY, device="cuda", trials=16)
    own, in_one = own_config("simple_spread", gpu, 3), shared_config("simple_spread", gpu, 3, "bench")
    assert own.num_gpus_per_learner == 1 / 16 and own.replay_buffer_config["device"] == "cuda"
    assert in_one.num_gpus_per_learner == 0 and in_one.shared_learner == "bench" and own.shared_learner is None
    assert own.seed == in_one.seed == 3 and own.num_env_steps_per_update == in_one.num_env_steps_per_update


def test_slots_in_one_pass_and_one_after_the_other(ray_session):
    told = []
    curve, table = measure_slots("simple_adversary", TINY, Sizes((1, 3)), told.append)
    assert curve["x"] == [1, 3] and [line["name"] for line in curve["lines"]] == [PASS, WHOLE, SINGLE]
    assert all(point["median"] > 0 and len(point["repeats"]) == 1 for line in curve["lines"] for point in line["points"])
    assert told == ["an update of 1 slots", "an update of 3 slots"]
    assert [row["name"] for row in table["rows"]] == [f"{name}: {n}" for name in (PASS, WHOLE, SINGLE) for n in (1, 3)]
    assert "10 updates of 3 slots and of single Learners lead from the same weights" in table["notes"][0]


def test_the_curve_ends_where_a_pass_would_take_too_long(ray_session):
    curve, table = measure_slots("simple_adversary", TINY, Sizes((1, 2, 4), seconds=0.0))
    assert curve["x"] == [1] and [len(line["points"]) for line in curve["lines"]] == [1, 1, 1]
    assert [row["name"] for row in table["rows"]] == [f"{name}: 1" for name in (PASS, WHOLE, SINGLE)]


def test_where_slots_compute_something_else_nothing_is_claimed(ray_session):
    with built(make_config("simple_adversary", num_envs=2, batch=32, rows=300)) as algo:
        fill(algo, 300)
        found = Slots(algo)
        found.grow(2)
        assert float(re.search(r"largest gap: (\S+) ", found.check())[1]) < 1e-5
        found.singles[1].config = found.singles[1].config.copy(copy_frozen=False).training(tau=0.5)
        found.singles[1].build()
        with pytest.raises(DifferentArithmetic, match="they do not compute the same"):
            found.check()


@pytest.mark.slow
def test_trials_with_a_learner_each_and_with_one_for_all(ray_session, monkeypatch):
    def short(*args, **kwargs):
        return make_config(*args, **kwargs).reporting(min_sample_timesteps_per_iteration=50)

    monkeypatch.setattr(shared, "make_config", short)
    monkeypatch.setattr(shared, "config_on_device", lambda scenario, device, **given: short(scenario, **given))
    monkeypatch.setattr(shared, "measure_slots", lambda scenario, options: iter(()))
    tables = list(measure_shared("simple_adversary", TINY))
    assert [(t["unit"], t["part"], [row["name"] for row in t["rows"]]) for t in tables] == [
        (ENV_STEPS, "shared", [OWN, SHARED]),
        (UPDATES, "shared", [OWN, SHARED]),
    ]
    assert [t["setting"].rpartition("rows an update, ")[2] for t in tables] == [
        "cpu, an update each 100 env steps",
        "cpu, an update each 10 env steps",
    ]
    for table in tables:
        assert all(row["median"] > 0 for row in table["rows"]) and len(table["notes"]) == 3
        assert "Wall time until all have made 100,000 env steps" in table["notes"][1]
        assert "updates in" in table["notes"][2]


def test_the_command_knows_the_part(monkeypatch, capsys):
    """Its options reach the measurement, and the table the terminal."""
    from benchmarks import command

    asked = []

    def measure(scenario, options):
        asked.append((scenario, options.trials, options.device))
        contenders = [Contender(OWN, "", lambda: 0.0)]
        yield shared.Table("shared", "Trials at the same time", "here", ENV_STEPS, contenders, {OWN: [3.0]}).to_dict()

    monkeypatch.setitem(command.PARTS, "shared", measure)
    monkeypatch.setattr(command, "local_ray", lambda **kwargs: __import__("contextlib").nullcontext())
    words = ["bench", "shared", "--trials", "5", "--scenarios", "simple_spread", "--json"]
    assert main(words) == 0 and asked == [("simple_spread", 5, "cpu")]
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    assert table["title"] == "Trials at the same time"
    assert main(["bench", "shared", "--trials", "0"]) == 2
    assert "--trials 0 must be at least 1" in capsys.readouterr().err
