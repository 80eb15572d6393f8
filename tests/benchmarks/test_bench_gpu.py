"""What is measured on a GPU: for real on the CPU, but tiny, with stand-ins of CUDA's graphs. No speed is asserted."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from fake_graph import FakeGraph
from paths import ROOT
from PIL import Image

from benchmarks import bare_rows, drawn_update, grid, profiles, scaling, slots, train
from benchmarks.command import measurement
from benchmarks.device_facts import device_facts
from benchmarks.devices import config_on_device
from benchmarks.drawn_update import (
    BARE,
    BARE_GRAPH,
    CALLS,
    EAGER,
    GRAPH,
    DifferentArithmetic,
    claims_of,
    make_bares,
    measure_drawn_updates,
)
from benchmarks.games import built, fill, make_config
from benchmarks.gpu_page import load_gpu
from benchmarks.grid import Sizes, measure_grid
from benchmarks.markdown import markdown
from benchmarks.options import SCALING, Options
from benchmarks.scaling import actors_of, measure_scaling, runners_of
from benchmarks.train import measure_train
from benchmarks.update import measure_update
from rllib_maddpg.cli.program import main, make_parser
from rllib_maddpg.config.maddpg_config import MADDPGConfig
from rllib_maddpg.learning.learner import MADDPGTorchLearner
from rllib_maddpg.learning.update_graphs import UpdateGraphs

TINY = Options(repeats=1, seconds=0.0, num_envs=2, batch=32, rows=200, many_agents=4)
SCRIPT = ROOT / "benchmarks" / "on_gpu.sh"
STEPS = ("facts", "tests", "update", "train", "shared", "runs", "grid")


class OnFakeGraphs(MADDPGTorchLearner):
    """A Learner whose graphs need no GPU."""

    graph_class = FakeGraph


@pytest.fixture
def graphs_on_the_cpu(monkeypatch):
    """Ours are recorded by `FakeGraph`; those of bare PyTorch, which draw torch's random numbers, are called again."""

    def config(scenario, device, graph=False, **given):
        made = config_on_device(scenario, device, **given)
        return made.training(cuda_graph="auto", learner_class=OnFakeGraphs) if graph else made

    for module in (drawn_update, grid):
        monkeypatch.setattr(module, "can_graph", lambda device: True)
        monkeypatch.setattr(module, "config_on_device", config)
    monkeypatch.setattr(profiles, "_CALLS", 1)
    monkeypatch.setattr(bare_rows, "_warm_up", lambda work: work())
    monkeypatch.setattr(bare_rows, "_captured", lambda work: SimpleNamespace(replay=work))


# ------------------------------------------------------------------------------------------ which part, which bar


def test_a_gpu_is_asked_for_something_else():
    gpu = replace(TINY, device="cuda")
    assert measurement("update", gpu) is measurement("update", replace(TINY, drawn=True)) is measure_drawn_updates
    assert measurement("train", gpu) is measurement("train", replace(TINY, runners=(1,))) is measure_scaling
    assert measurement("update", TINY) is measure_update and measurement("train", TINY) is measure_train
    assert runners_of(gpu) == SCALING and actors_of(gpu) == sum(SCALING)
    assert runners_of(replace(TINY, runners=(2, 1, 2))) == (1, 2) and actors_of(replace(TINY, runners=(2, 1))) == 3


def test_bars_of_an_update():
    values = {EAGER: [4.0], GRAPH: [1.1], CALLS: [0.8], BARE: [5.0], BARE_GRAPH: [0.9]}
    met = [(c.text, c.limit, c.met) for c in claims_of(values, agents=3)]
    assert met == [
        (GRAPH, 1.0, False),
        (f"{GRAPH} / {BARE_GRAPH}", 1.3, True),
        (f"{BARE} / {GRAPH}", 5.0, False),
        (f"{EAGER} / {GRAPH}", None, None),
    ]
    assert [c.limit for c in claims_of(values, agents=24)] == [4.0, None, None, None]
    assert [c.limit for c in claims_of(values, agents=None)] == [None] * 4
    assert [c.text for c in claims_of({EAGER: [4.0], BARE: [5.0]}, agents=3)] == [f"{EAGER} / {BARE}"]


# ------------------------------------------------------------------------------------------ updates


def test_updates_from_a_draw(ray_session, graphs_on_the_cpu, tmp_path):
    options = replace(TINY, profile=str(tmp_path))
    tables = list(measure_drawn_updates("simple_adversary", options))
    assert [t["setting"] for t in tables] == [
        f"simple_adversary, 3 agents, {rows} rows, networks of 2 x 64, rows on cpu" for rows in (32, 256)
    ]
    for table in tables:
        assert [row["name"] for row in table["rows"]] == [EAGER, GRAPH, CALLS, BARE, BARE_GRAPH]
        assert all(row["median"] > 0 for row in table["rows"]) and "the same weights" in table["notes"][0]
    assert [t["claims"][0]["limit"] for t in tables] == [1.0, None]
    profiles = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert len(profiles) == 5  # where there are bars
    text = profiles["3_agents_32_rows_ours_CUDA_graph.txt"]
    assert "kernels: 0.0 an update" in text and "aten::bmm" in text and "wall time, not profiled: " in text


def test_without_graphs_two_are_left(ray_session):
    tables = list(measure_drawn_updates("simple_spread", TINY))
    assert [[row["name"] for row in table["rows"]] for table in tables] == [[EAGER, BARE]] * 4
    sizes = [(3, 32), (4, 32), (3, 256), (4, 256)]
    assert [t["setting"] for t in tables] == [
        f"simple_spread, {agents} agents, {rows} rows, networks of 2 x 64, rows on cpu" for agents, rows in sizes
    ]


@pytest.fixture(scope="module")
def algo(ray_session):
    with built(make_config("simple_adversary", num_envs=4, batch=32, rows=100)) as algo:
        fill(algo, 250)
        yield algo


@pytest.mark.parametrize("name, values", [(EAGER, {"tau": 0.02}), (BARE, {"lr": 0.0101}), (BARE_GRAPH, {"gamma": 0.5})])
def test_where_somebody_computes_something_else_nothing_is_claimed(ray_session, graphs_on_the_cpu, monkeypatch, name, values):
    def wrong(algo, *args):
        bares, _ = make_bares(algo, *args)
        for bare_name, bare in bares.items():
            if name in (EAGER, bare_name):
                bare.bare.settings = replace(bare.bare.settings, **values)
                for optimizer in (o for own in bare.bare.optimizers.values() for o in own.values()):
                    optimizer.param_groups[0]["lr"] = torch.tensor(bare.bare.settings.lr)
        return bares, None

    monkeypatch.setattr(drawn_update, "make_bares", wrong)
    error: list[DifferentArithmetic] = []
    (table,) = drawn_update._measured("simple_adversary", TINY, {}, 32, error)
    assert table["claims"] == [] and table["notes"] == [str(error[0])] and len(table["rows"]) == 5
    assert "they do not compute the same" in table["notes"][0]
    monkeypatch.setattr(drawn_update, "_measured", lambda *given: given[-1].append(error[0]) or iter([table]))
    with pytest.raises(DifferentArithmetic, match="they do not compute the same"):
        list(measure_drawn_updates("simple_adversary", TINY))


def test_what_cannot_be_recorded_is_left_out(ray_session, graphs_on_the_cpu, monkeypatch):
    def refused(*args):
        raise ValueError("operation not permitted when stream is capturing")

    monkeypatch.setattr(bare_rows, "_captured", refused)
    monkeypatch.setattr(UpdateGraphs, "_record", refused)
    found = measure_drawn_updates("simple_adversary", TINY)
    table = next(found)
    assert [row["name"] for row in table["rows"]] == [EAGER, BARE] and [c["text"] for c in table["claims"]] == [
        f"{EAGER} / {BARE}"
    ]
    assert "the same weights" in table["notes"][0] and "when stream is capturing" in table["notes"][2]
    with pytest.raises(ValueError, match="when stream is capturing"):
        list(found)


def test_the_bare_graph_starts_where_it_stood_before_its_warm_up(algo, graphs_on_the_cpu):
    bares, _ = make_bares(algo, "cpu")
    before = {name: bare.bare.weights() for name, bare in bares.items()}
    places = torch.arange(32)
    for bare in bares.values():
        bare.update_at(places)
        bare.update_at(places + 7)
    for agent in bares[BARE].bare.agents:
        for net in ("critic", "target_actor"):
            weights = {name: bare.bare.weights()[agent][net] for name, bare in bares.items()}
            for k, start in enumerate(before[BARE][agent][net]):
                assert (before[BARE_GRAPH][agent][net][k] == start).all()
                assert (weights[BARE][k] != start).any()
                assert weights[BARE_GRAPH][k] == pytest.approx(weights[BARE][k], abs=1e-6)


def test_nothing_in_the_bare_update_waits_for_the_device(algo, graphs_on_the_cpu):
    """So a CUDA graph can hold it, and replays do what eager updates do."""
    bares, _ = make_bares(algo, "cpu")
    graph = FakeGraph()
    bares[BARE_GRAPH].update_at(torch.arange(32))
    graph.capture(bares[BARE_GRAPH]._learn)
    graph.replay()
    for _ in range(2):
        bares[BARE].update_at(torch.arange(32))
    for agent, nets in bares[BARE].bare.weights().items():
        for net, tensors in nets.items():
            for replayed, eager in zip(bares[BARE_GRAPH].bare.weights()[agent][net], tensors, strict=True):
                assert replayed == pytest.approx(eager, abs=1e-6)


# ------------------------------------------------------------------------------------------ curves


def test_the_grid_has_a_line_for_each_number_of_agents_and_device(ray_session, graphs_on_the_cpu):
    (curve,) = measure_grid(TINY, Sizes(agents=(2, 3), batches=(16, 32), seconds=100.0))
    assert curve["x"] == [16, 32] and [line["name"] for line in curve["lines"]] == ["2 agents, cpu", "3 agents, cpu"]
    assert all(len(line["points"]) == 2 and line["exponent"] is not None for line in curve["lines"])


def test_a_line_ends_where_an_update_would_take_too_long(ray_session):
    (curve,) = measure_grid(TINY, Sizes(agents=(2,), batches=(16, 32, 64), seconds=0.0))
    (line,) = curve["lines"]
    assert len(line["points"]) == 1 and line["exponent"] is None


def test_training_over_runners(ray_session, monkeypatch):
    fragments = []

    def noted(algos, options):
        of_runner = lambda runner: runner.config.get_rollout_fragment_length()  # noqa: E731
        algo = algos[1]
        fragments.append([algo.config.get_rollout_fragment_length()])
        fragments[-1] += algo.env_runner_group.foreach_env_runner(of_runner, local_env_runner=False)
        return rounds(algos, options)

    def short(*args, **kwargs):
        return config_on_device(*args, **kwargs).reporting(min_sample_timesteps_per_iteration=50)

    monkeypatch.setattr(scaling, "config_on_device", short)
    rounds = scaling._rounds
    monkeypatch.setattr(scaling, "_rounds", noted)
    monkeypatch.setattr(train, "_WARM_UP", 200)
    *tables, env_steps, updates, long, _ = measure_scaling("simple_adversary", replace(TINY, runners=(1,)))
    assert [(t["title"], t["unit"]) for t in tables] == 2 * [
        ("Training with many runners", "env steps/s"),
        ("The driver meanwhile", "% busy"),
    ]
    assert [row["name"] for row in tables[0]["rows"]] == ["1 env runner"] and tables[0]["claims"] == []
    assert fragments == [[50, 50], [8, 8], [25, 25]]  # 2 envs; 8 is the least of a remote runner
    assert long["setting"].endswith("an update each 100 env steps, fragments of 25 env steps of each env")
    names = ["an update each 100 env steps", "an update each 10 env steps"]
    for curve in (env_steps, updates):
        assert curve["x"] == [1] and [line["name"] for line in curve["lines"]] == names
        assert all(line["points"][0]["median"] > 0 for line in curve["lines"])


# ------------------------------------------------------------------------------------------ the page and the script


def curve_of(title, x, *lines):
    points = {"repeats": [2.0], "median": 2.0, "min": 2.0, "max": 2.0}
    made = [{"name": n, "does": "", "exponent": None, "points": [points] * k, "dashed": True} for n, k in lines]
    return {
        "title": title,
        "x_name": "rows a batch",
        "unit": "ms",
        "setting": "here",
        "x": x,
        "lines": made,
        "not_a_ratio": True,
    }


def report_of(device, **found):
    hardware = {"cpu": "a CPU", "cores": 16, "memory_gib": 1.0, "load_average": 0.0, "gpu": ["a GPU"], "system": ""}
    options = {"repeats": 1, "seconds": 1.0, "torch_threads": 1, "device": device}
    fixed = {"schema": 1, "command": "python -m benchmarks", "date": "2030-01-01", "versions": {}, "tables": []}
    return {**fixed, "hardware": hardware, "options": options, **found}


def test_the_page_says_what_was_not_measured(tmp_path):
    text = markdown(report_of("cpu"))
    assert "## On a GPU" in text and "Not measured yet: no GPU was at hand, so all columns for it are empty." in text
    assert (
        "| 3 agents, 1,024 rows |  |  |  |  |  | <= 1.00 ms; <= 1.30 x the bare graph; >= 5.00 x as fast as bare PyTorch |"
        in text
    )
    assert "| 14 |  |  |  |  | >= 8.00 x one runner at an update each 100 env steps |" in text
    # A curve of the CPU alone has empty columns beside it.
    (tmp_path / "grid.json").write_text(
        json.dumps(report_of("cpu", growth=[curve_of(grid.TITLE, [8, 16], ("3 agents, cpu", 1))]))
    )
    gpu = load_gpu(tmp_path, lambda file: json.loads(file.read_text()))
    text = markdown(report_of("cpu"), gpu=gpu)
    assert "| rows a batch | 3 agents, cpu | 3 agents, cuda |" in text and "| 8 | 2.00 |  |" in text and "| 16 |  |  |" in text
    # What was measured stands in place of what was not.
    lines = ("3 agents, cpu", 1), ("3 agents, cuda", 2)
    table = {
        "part": "update",
        "title": "Update from a draw",
        "setting": "there",
        "unit": "ms",
        "rows": [],
        "claims": [],
        "notes": [],
    }
    gpu = {
        "update": report_of("cuda", tables=[table]),
        "grid": report_of("cuda", growth=[curve_of(grid.TITLE, [8, 16], *lines)]),
    }
    text = markdown(report_of("cpu"), gpu=gpu)
    assert "### Update from a draw: there" in text and "so some columns for it are empty" in text and "| 16 |  | 2.00 |" in text
    gpu["train"] = report_of("cuda", growth=[curve_of("Env steps of training", [1], ("an update each 100 env steps", 1))])
    text = markdown(report_of("cpu"), gpu=gpu)
    assert "so some columns for it are empty" in text
    assert "| 64 |  |  |  | one pass: <= 8.00 x that of one slot |" in text
    assert "| updates/s, an update each 10 env steps |  |  | one shared Learner / a Learner each >= 5.00 |" in text
    gpu["shared"] = report_of("cuda", growth=[curve_of(slots.TITLE, [1], ("one pass", 1))])
    assert "Not measured" not in markdown(report_of("cpu"), gpu=gpu)


def test_what_lies_in_the_repository_makes_its_page(tmp_path, capsys):
    """`BENCHMARKS.md` is written by the command that it names."""
    page, plots = tmp_path / "BENCHMARKS.md", tmp_path / "docs" / "bench"
    saved, gpu = ROOT / "docs" / "bench.json", ROOT / "docs" / "gpu"
    assert main(["bench", "--load", str(saved), "--gpu", str(gpu), "--plots", str(plots), "--markdown", str(page)]) == 0
    assert page.read_text() == (ROOT / "BENCHMARKS.md").read_text()
    with Image.open(plots / "update_by_device_over_rows_a_batch.png") as image:
        assert image.format == "PNG"


def test_commands_of_the_docs_exist():
    page = (ROOT / "docs" / "gpu.md").read_text()
    scope = {"MADDPGConfig": MADDPGConfig}
    exec(re.search(r"```python\n(.*?)```", page, re.S)[1], scope)
    assert scope["config"].replay_buffer_config["device"] == "cuda" and scope["config"].num_gpus_per_learner == 1
    commands = re.findall(r"^python -m benchmarks (.*)$", page, re.M)
    assert len(commands) == 4
    for command in commands:
        make_parser(with_bench=True).parse_args(["bench", *command.split()])


def test_facts_of_a_machine():
    facts = json.loads(json.dumps(device_facts()))
    assert facts["torch"]["version"] == torch.__version__ and facts["torch"]["sees_a_gpu"] == torch.cuda.is_available()
    assert len(facts["gpus"]) == torch.cuda.device_count() and "ray" in facts["versions"]


@pytest.mark.parametrize("words, device", [([], "cpu"), (["a", "b"], "cpu"), (["folder"], "tpu")])
def test_the_script_refuses_what_it_does_not_know(words, device, tmp_path):
    done = subprocess.run(
        ["bash", SCRIPT, *words], cwd=tmp_path, env={"DEVICE": device, "PATH": "/bin:/usr/bin"}, capture_output=True
    )
    assert done.returncode == 2 and done.stderr


@pytest.mark.slow
@pytest.mark.ray
def test_the_script_on_the_cpu(tmp_path):
    env = {**os.environ, "DEVICE": "cpu", "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(["bash", SCRIPT, tmp_path], env=env, capture_output=True).returncode == 0
    steps = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert [(s["step"], s["status"]) for s in steps] == [(n, 0) for n in STEPS]
    untils = [int(until) for until in re.findall(r"^step \w+ (\d+) ", SCRIPT.read_text(), re.M)]
    assert untils == sorted(untils) and len(untils) == len(steps) and untils[-1] <= 355  # and 5 to be killed
    for name in ("facts", "update", "train", "shared", "grid"):
        json.loads((tmp_path / f"{name}.json").read_text())
