"""The benchmarks: their arithmetic by hand-made numbers, and each part for real, but tiny. No speed is asserted."""

import csv
import json
import math
from dataclasses import replace

import pytest
from PIL import Image

from benchmarks import compare, replay, shares, soak, train, update
from benchmarks.bare_update import BareMADDPG
from benchmarks.compare import Contender, Table, absolute, measure_in_turn, ratio, seconds_per_unit
from benchmarks.games import BareLoop, built, fill, make_config, takes_direct_stepping
from benchmarks.growth import Sizes, exponent, measure_growth
from benchmarks.options import Options
from benchmarks.soak import Sample, claims_of, measure_soak
from benchmarks.text import number, table_text
from rllib_maddpg.cli.program import main

TINY = Options(repeats=1, seconds=0.0, num_envs=2, batch=32, rows=200, stock_rows=60, many_agents=4)
WORDS = [f"--{name.replace('_', '-')}={getattr(TINY, name)}" for name in ("repeats", "seconds", "num_envs", "batch", "rows")]
WORDS += ["--stock-rows=60", "--many-agents=4"]


class Clock:
    """Stands still but for `tick`."""

    def __init__(self, monkeypatch, module):
        self.now = 0.0
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)

    def tick(self, seconds, result=None):
        self.now += seconds
        return result


@pytest.fixture
def short_iterations(monkeypatch):
    """Iterations of 50 env steps in the modules that train."""

    def short(*args, **kwargs):
        return make_config(*args, **kwargs).reporting(min_sample_timesteps_per_iteration=50)

    for module in (train, soak):
        monkeypatch.setattr(module, "make_config", short)


# ------------------------------------------------------------------------------------------ arithmetic


def test_contenders_take_turns_and_the_first_round_does_not_count():
    calls = []

    def contender(name):
        return Contender(name, "", lambda: calls.append(name) or float(len(calls)))

    assert measure_in_turn([contender("a"), contender("b"), contender("c")], 2) == {"a": [4, 7], "b": [5, 8], "c": [6, 9]}
    assert "".join(calls) == "abc" * 3


def test_a_measurement_lasts_as_long_as_asked_and_counts_units(monkeypatch):
    clock = Clock(monkeypatch, compare)
    assert seconds_per_unit(lambda: clock.tick(0.25, 5), 0.9) == pytest.approx(1.0 / 20)  # four calls
    assert seconds_per_unit(lambda: clock.tick(0.25, 5), 0.0) == pytest.approx(0.25 / 5)  # one call, at least


def test_ratios_are_of_medians_and_their_spread_that_of_the_rounds():
    values = {"ours": [3.0, 4.0, 20.0], "theirs": [1.0, 2.0, 5.0]}
    claim = ratio(values, "ours", "theirs", at_least=2.0)
    assert (claim.text, claim.value, claim.low, claim.high) == ("ours / theirs", 2.0, 2.0, 4.0)
    assert (claim.relation, claim.limit, claim.met) == (">=", 2.0, True)
    assert not ratio(values, "ours", "theirs", at_least=2.01).met
    assert not ratio(values, "ours", "theirs", at_most=1.99).met
    assert ratio(values, "ours", "theirs").met is None
    claim = absolute(values, "theirs", at_most=2.0)
    assert (claim.value, claim.low, claim.high, claim.met) == (2.0, 1.0, 5.0, True)


def test_a_table_says_all_of_it():
    contenders = [Contender("ours", "is quick", lambda: 0.0), Contender("theirs", "is not", lambda: 0.0)]
    values = {"ours": [1500.0, 1000.0, 1250.0], "theirs": [500.0, 250.0, 750.0]}
    table = Table(
        "train", "Race", "on sand", "m/s", contenders, values, [ratio(values, "ours", "theirs", at_least=3)], ["Dry."]
    )
    lines = [line.split() for line in table_text(table.to_dict()).splitlines()]
    assert lines[2] == ["ours", "1,250", "1,000", "..", "1,500"]
    assert lines[6] == ["ours", "/", "theirs", "2.50", "1.67", "..", "4.00", ">=", "3.00", "missed"]
    assert lines[-3:] == [["ours:", "is", "quick."], ["theirs:", "is", "not."], ["Dry."]]


def test_numbers_have_three_digits():
    numbers = [12345.6, 123.4, 12.34, 1.234, 0.1234, 0.01234, 0.001234, 0.0, -12.34]
    assert [number(x) for x in numbers] == ["12,346", "123", "12.3", "1.23", "0.123", "0.0123", "0.00123", "0.00000", "-12.3"]


def test_exponents():
    assert exponent([2, 4, 8], [3.0, 0.0, 48.0]) == pytest.approx(2.0)
    assert exponent([2], [3.0]) is None


def test_a_second_counts_once_for_the_innermost_call(monkeypatch):
    clock, watch = Clock(monkeypatch, shares), shares.Stopwatch()
    inner = watch.wrap(lambda: clock.tick(2.0), "inner")

    def work():
        clock.tick(1.0)
        inner()
        inner()
        return clock.tick(0.5, "done")

    assert watch.wrap(work, "outer")() == "done"
    assert watch.seconds == {"outer": 1.5, "inner": 4.0}


def test_the_soak_is_judged_from_the_first_full_quarter_to_the_last():
    # Memory grows while the buffer of 1,000 rows fills, then by 3 %; the machine falls to half its speed, training to 40 %.
    samples = [Sample(n * 500, n, 50.0 * n, 1000.0, 3000.0, 900.0) for n in (1, 2)]
    samples += [Sample(1500 + n * 500, n, 200.0, 1000.0, 3000.0, 1000.0) for n in range(4)]
    samples += [Sample(3500 + n * 500, n, 206.0, 400.0, 1500.0, 1100.0) for n in range(4)]
    growth, slowdown, cpu = claims_of(samples, capacity=1000)
    assert growth.value == pytest.approx(0.03) and not growth.met
    assert slowdown.value == pytest.approx(0.25) and not slowdown.met
    assert cpu.value == pytest.approx(0.1) and cpu.met is None


# ------------------------------------------------------------------------------------------ the parts


def test_the_bare_loop_counts_steps_and_plays_on():
    loop = BareLoop("simple_adversary")
    assert [loop.run(n) for n in (30, 25)] == [30, 25]


def run_json(capsys, *words):
    assert main(["bench", *WORDS, *words, "--scenarios", "simple_adversary", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


CONTENDERS = {
    "sampling": [["bare loop", "ours", "RLlib's runner"]],
    "replay": [["ours", "RLlib's buffer"], ["ours", "RLlib's buffer"], ["resident", "bytes_per_row x capacity"]],
    "update": [["ours", "bare PyTorch"]],
    "gradients": [["written out", "autograd's"]],
    "family": [["MADDPG", "MATD3", "IDDPG", "inferred policies"]],
    "critics": [["mlp", "attention"]],
    "ensembles": [["one policy", "3 sub-policies", "3, one draw for all"]],
    "draws": [["uniform, one step", "prioritized", "n-step", "prioritized, n-step"]],
    "train": [["bare loop", "ours, one process", "ours, one remote runner"], list(shares.DOES)],
}


@pytest.mark.parametrize("part", CONTENDERS)
def test_each_part_measures_every_contender(ray_session, short_iterations, monkeypatch, capsys, part):
    monkeypatch.setattr(replay, "_MEMORY_REPEATS", 1)
    monkeypatch.setattr(replay, "_ADDED_FRAGMENTS", 1)
    report = run_json(capsys, part, *(["--rows=20000"] if part == "replay" else []))
    expected = CONTENDERS[part]
    if part == "sampling" and takes_direct_stepping("simple_adversary"):
        expected = [["bare loop", "ours", "ours, no direct path", "RLlib's runner"]]
    assert [[row["name"] for row in table["rows"]] for table in report["tables"]] == expected
    for table in report["tables"]:
        assert table["part"] == part and table["setting"].startswith("simple_adversary") and table["unit"]
        for row in table["rows"]:
            assert row["does"] and len(row["repeats"]) == TINY.repeats
            assert all(math.isfinite(x) and x > 0 for x in row["repeats"])
            assert row["min"] <= row["median"] <= row["max"]
        for claim in table["claims"]:
            assert math.isfinite(claim["value"]) and claim["met"] in (True, False, None)
    assert report["schema"] == 1 and report["command"].startswith("python -m benchmarks ") and part in report["command"]
    assert report["options"]["batch"] == 32 and report["options"]["scenarios"] == ["simple_adversary"]
    assert set(report["hardware"]) == {"cpu", "cores", "memory_gib", "load_average", "gpu", "system"}
    assert {"python", "ray", "torch", "numpy", "mpe2"} < set(report["versions"])
    if part == "train":
        assert sum(row["repeats"][0] for row in report["tables"][1]["rows"]) == pytest.approx(100)


def test_simple_spread_is_updated_with_many_agents_too(ray_session):
    tables = update.measure_update("simple_spread", TINY)
    assert ["4 agents" in t["setting"] for t in tables] == [False, True]
    assert [t["claims"][0]["limit"] for t in tables] == [1.0, None]


def test_hooks_are_gone_afterwards(ray_session):
    with built(make_config("simple_adversary", num_envs=2, batch=32)) as algo:
        before = [(name, owner, attribute, attribute in vars(owner)) for name, owner, attribute in shares.hooks(algo)]
        with shares.timed(algo):
            assert all(attribute in vars(owner) for _, owner, attribute, _ in before)
        assert [attribute in vars(owner) for _, owner, attribute, _ in before] == [own for *_, own in before]


# ------------------------------------------------------------------------------------------ the same arithmetic


@pytest.fixture(scope="module")
def learner(ray_session):
    """An algorithm with rows, whose weights each test sets back."""
    with built(make_config("simple_adversary", num_envs=4, batch=64)) as algo:
        fill(algo, 64)
        yield algo, algo.learner_group.get_state()


def test_the_baseline_computes_what_we_compute(learner):
    algo, state = learner
    algo.learner_group.set_state(state)
    assert update.check_same_arithmetic(algo, update.make_bare(algo)) < update.TOLERANCE


@pytest.mark.parametrize("setting, value", [("lr", 0.0101), ("tau", 0.02), ("gamma", 0.5)])
def test_a_baseline_that_computes_something_else_is_noticed(learner, setting, value):
    algo, state = learner
    algo.learner_group.set_state(state)
    bare = update.make_bare(algo)
    weights = algo.learner_group.get_weights()
    wrong = BareMADDPG(weights, replace(bare.settings, **{setting: value}))
    with pytest.raises(update.DifferentArithmetic, match="they do not compute the same"):
        update.check_same_arithmetic(algo, wrong)


# ------------------------------------------------------------------------------------------ growth, soak, pages


def test_growth_has_a_curve_for_each_size(ray_session):
    curves = measure_growth(TINY, Sizes(agents=(2,), batches=(16,), envs=(1,), buffers=(100, 200)))
    assert [(c["title"], c["x_name"], c["x"]) for c in curves] == [
        ("Sampling", "agents", [2]),
        ("Sampling", "envs", [1]),
        ("Update", "agents", [2]),
        ("Update", "rows a batch", [16]),
        ("Draw", "rows a batch", [16]),
        ("Draw", "rows in buffer", [100, 200]),
    ]
    for curve in curves:
        for line in curve["lines"]:
            assert len(line["points"]) == len(curve["x"]) and all(p["median"] > 0 for p in line["points"])
            assert (line["exponent"] is None) == (len(curve["x"]) == 1)


def test_the_soak_writes_its_samples_as_it_goes(ray_session, short_iterations, tmp_path):
    file, lines = tmp_path / "soak.csv", []
    options = replace(TINY, soak_env_steps=TINY.rows + 8 * 50)
    result = measure_soak(options, interval=50, csv_file=file, tell=lambda _: lines.append(file.is_file()))
    assert lines[:2] == [False, True]
    with file.open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert [int(row["env_steps"]) for row in rows] == [s["env_steps"] for s in result["samples"]]
    assert int(rows[-1]["env_steps"]) >= 600 and all(float(row["rss_mb"]) > 1 for row in rows)
    assert all(float(row["bare_steps_per_second"]) > 0 and float(row["env_steps_per_second"]) > 0 for row in rows)
    assert all(float(row["cpu_us_per_env_step"]) > 0 for row in rows) and len(result["claims"]) == 3


def test_a_saved_report_becomes_a_page_with_pictures(ray_session, tmp_path, capsys):
    file, page, plots = tmp_path / "new" / "bench.json", tmp_path / "BENCHMARKS.md", tmp_path / "docs" / "bench"
    report = run_json(capsys, "update", "--save", str(file))
    assert json.loads(file.read_text()) == report
    points = [compare.summary([y, y + 1.0]) for y in (3.0, 12.0)]
    line = {"name": "ours", "does": "is quick", "exponent": 2.0, "points": points}
    curve = {"title": "Race", "x_name": "sand dunes", "unit": "s", "setting": "in the sun", "x": [1, 2], "lines": [line] * 2}
    samples = [vars(Sample(n, n, 100.0, 1000.0, 2000.0, 900.0)) for n in (1, 2, 3)]
    long_run = {"setting": "a long way", "capacity": 2, "samples": samples, "claims": report["tables"][0]["claims"]}
    file.write_text(json.dumps({**report, "growth": [curve], "soak": long_run}))
    assert main(["bench", "--load", str(file), "--plots", str(plots), "--markdown", str(page)]) == 0
    assert "Race over sand dunes: in the sun, s" in capsys.readouterr().out
    text = page.read_text()
    assert report["command"] in text and report["hardware"]["cpu"] in text and "## Update" in text
    assert "| 2 | 12.5 | 12.5 | 1.00 |" in text and "| grows | ~ x^2.00 | ~ x^2.00 |  |" in text
    for name in ("race_over_sand_dunes", "soak"):
        assert f"](docs/bench/{name}.png)" in text
        with Image.open(plots / f"{name}.png") as image:
            assert image.format == "PNG" and image.size[0] == 840


# ------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["samplin"],
            "'samplin' is not a part of the benchmarks. Did you mean 'sampling'? There are: sampling, replay, update, grad",
        ),
        (
            ["update", "--scenarios", "go"],
            "--scenarios go is not a scenario of mpe2. There are: collect_treasure, simple, simple_a",
        ),
        (["update", "--repeats", "0"], "--repeats 0 must be at least 1"),
        (["--soak", "--soak-env-steps", "5000"], "--soak-env-steps 5000 must be at least 180000"),
        (["--load", "nowhere.json"], "--load nowhere.json cannot be read"),
    ],
)
def test_wrong_usage_is_told(words, message, capsys):
    assert main(["bench", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err


def test_a_gpu_that_is_not_there_is_told(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["bench", "update", "--device", "cuda"]) == 2
    assert "--device cuda: torch sees no GPU on this machine" in capsys.readouterr().err


def test_a_report_of_something_else_is_not_loaded(tmp_path, capsys):
    (tmp_path / "x.json").write_text("[]")
    assert main(["bench", "--load", str(tmp_path / "x.json")]) == 2
    assert "is not a report of `python -m benchmarks --save`" in capsys.readouterr().err
