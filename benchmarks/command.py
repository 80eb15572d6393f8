"""`python -m benchmarks`: reads its command line, measures, and prints or writes the report."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks import text
from benchmarks.critics import measure_critics
from benchmarks.drawn_update import measure_drawn_updates
from benchmarks.draws import measure_draws
from benchmarks.ensembles import measure_ensembles
from benchmarks.family import measure_family
from benchmarks.gpu_page import load_gpu
from benchmarks.gradients import measure_gradients
from benchmarks.grid import measure_grid
from benchmarks.growth import measure_growth
from benchmarks.machine import hardware
from benchmarks.markdown import write_markdown
from benchmarks.options import SCALING, Options
from benchmarks.pictures import save_pictures
from benchmarks.replay import measure_replay
from benchmarks.sampling import measure_sampling
from benchmarks.scale import ACTORS, measure_scale
from benchmarks.scaling import actors_of, measure_scaling
from benchmarks.shared import measure_shared
from benchmarks.soak import Sample, check_length, measure_soak
from benchmarks.train import measure_train
from benchmarks.update import measure_update
from rllib_maddpg.envs.errors import did_you_mean
from rllib_maddpg.results.output_paths import check_file, make_folder
from rllib_maddpg.results.versions import versions
from rllib_maddpg.runs.ray_start import local_ray

PROGRAM = "python -m benchmarks"
# Each gives tables, and curves, which have lines.
PARTS: dict[str, Callable[[str, Options], Iterable[dict[str, Any]]]] = {
    "sampling": measure_sampling,
    "replay": measure_replay,
    "update": measure_update,
    "gradients": measure_gradients,
    "family": measure_family,
    "critics": measure_critics,
    "ensembles": measure_ensembles,
    "draws": measure_draws,
    "train": measure_train,
    "scale": measure_scale,
    "shared": measure_shared,
}
ALL = "all"
SCHEMA = 1
_DEFAULTS = Options()


def add_bench(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the command to those of `rllib-maddpg`."""
    command = commands.add_parser(
        "bench",
        parents=[common],
        help="measure speed and memory against stated baselines",
        description="Measures the package against stated baselines, in turn and repeatedly; prints medians and ratios.",
        epilog=f"example: {PROGRAM} all --growth --soak --plots docs/bench --save docs/bench.json --markdown BENCHMARKS.md",
    )
    add = command.add_argument
    add(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"{', '.join(PARTS)} or {ALL} (default: {ALL}, but none with --growth, --grid, --soak)",
    )
    add("--growth", action="store_true", help="how cost grows with agents, envs, batch and buffer (some ten minutes)")
    add("--grid", action="store_true", help="an update's time over rows and agents on the CPU and --device (some two minutes)")
    add("--soak", action="store_true", help="a long run: does memory stay, does speed? (some ten minutes)")
    add(
        "--scenarios",
        nargs="+",
        default=_DEFAULTS.scenarios,
        metavar="NAME",
        help=f"of mpe2 (default: {' '.join(_DEFAULTS.scenarios)})",
    )
    for name, kind, meaning in (
        ("repeats", int, "rounds, each measuring every contender once"),
        ("seconds", float, "wall time of a single measurement"),
        ("num-envs", int, "environments of each runner"),
        ("batch", int, "joint rows of an update or a draw"),
        ("rows", int, "capacity of the replay buffer"),
        ("stock-rows", int, "env steps in RLlib's buffer"),
        ("many-agents", int, "agents of the large game in part update"),
        ("torch-threads", int, "threads of torch"),
        ("soak-env-steps", int, "length of the long run"),
        ("trials", int, "at the same time in part shared"),
    ):
        default = getattr(_DEFAULTS, name.replace("-", "_"))
        add(f"--{name}", type=kind, default=default, metavar="N", help=f"{meaning} (default: {default:,})")
    add(
        "--device",
        choices=["cpu", "cuda"],
        default="cpu",
        help="of the Learner in update, replay, train, shared and growth",
    )
    add("--drawn", action="store_true", help="update: from rows in the buffer to new weights, as with --device cuda")
    many = "train: with so many env runners, as with --device cuda"
    add("--runners", nargs="+", type=int, default=(), metavar="N", help=f"{many} (there: {' '.join(map(str, SCALING))})")
    add("--profile", metavar="DIR", help="update, rows drawn: write what torch's profiler says of the tables that have bars")
    add("--json", action="store_true", help="print JSON only: all repeats, hardware, versions")
    add("--save", metavar="FILE", help="write the JSON to a file, too")
    add("--load", metavar="FILE", help="measure nothing: take the report from a file that --save wrote")
    add("--plots", metavar="DIR", help="write PNGs of all curves and of --soak")
    add("--gpu", metavar="DIR", help="with --markdown: what benchmarks/on_gpu.sh has left there goes into the page, too")
    add("--csv", metavar="FILE", help="write the samples of --soak (default: soak.csv in --plots, or here)")
    add("--markdown", metavar="FILE", help="write a Markdown page, with the plots if there are any")
    command.set_defaults(run=run_bench)


def run_bench(args: argparse.Namespace, argv: list[str]) -> int:
    """Does what the command line says; returns the exit code.

    Raises:
        ValueError: On an unknown part or scenario, a setting that cannot be measured here, or a file that cannot be written.
    """
    # Before some ten minutes of measuring.
    for flag in ("save", "csv", "markdown"):
        if getattr(args, flag):
            check_file(f"--{flag}", getattr(args, flag))
    if args.plots:
        make_folder("--plots", args.plots)
    if args.load:
        report = load(args.load)
        if not args.json:
            _print_report(report)
    else:
        report = _measure(args, argv)
    _save(report, args.save)
    if args.json:
        print(json.dumps(report, indent=1))
    gpu = load_gpu(args.gpu, load) if args.gpu else {}
    pictures = {}
    for one in [report, *gpu.values()] if args.plots else ():
        pictures |= save_pictures(one, args.plots)
    if args.markdown:
        write_markdown(report, args.markdown, pictures, gpu)
    return 0


def load(file: str | Path) -> dict[str, Any]:
    """A report that `--save` wrote.

    Raises:
        ValueError: If it is none.
    """
    try:
        report = json.loads(Path(file).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"--load {file} cannot be read: {error}") from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise ValueError(f"--load {file} is not a report of `{PROGRAM} --save` of this version.")
    return report


def parts_of(args: argparse.Namespace) -> list[str]:
    """The parts to measure: those named; none named: all, unless only `--growth`, `--grid` or `--soak` was asked for."""
    for part in args.parts:
        if part not in PARTS and part != ALL:
            hint = did_you_mean(part, PARTS)
            raise ValueError(f"{part!r} is not a part of the benchmarks.{hint} There are: {', '.join(PARTS)}, {ALL}.")
    if ALL in args.parts or not (args.parts or args.growth or args.grid or args.soak):
        return list(PARTS)
    return [part for part in PARTS if part in args.parts]


def _measure(args: argparse.Namespace, argv: list[str]) -> dict[str, Any]:
    fields = Options.__dataclass_fields__
    given = {name: getattr(args, name) for name in fields}
    options = Options(**given | {name: tuple(given[name]) for name in ("scenarios", "runners")})
    options.check()
    parts = parts_of(args)
    if args.soak:
        check_length(options)
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "command": f"{PROGRAM} {shlex.join(argv[1:])}",
        "date": f"{datetime.now():%Y-%m-%d}",
        "options": asdict(options),
        "hardware": hardware(),
        "versions": versions(),
        "tables": [],
    }
    show = (lambda string: None) if args.json else lambda string: print(f"{string}\n", flush=True)
    show(text.machine_text(report))
    scales = "train" in parts and measurement("train", options) is measure_scaling
    actors = max(ACTORS, actors_of(options) if scales else 0)
    with _torch_threads(options.torch_threads), local_ray(actors=actors):
        if args.soak:
            # First, in a young process: memory that earlier parts have given back would hide growth.
            csv_file = args.csv or Path(args.plots or ".") / "soak.csv"
            with contextlib.redirect_stdout(sys.stderr):
                report["soak"] = measure_soak(options, csv_file=csv_file, tell=_tell_sample)
            show(text.soak_text(report["soak"]))
            _save(report, args.save)
        for part in parts:
            for scenario in options.scenarios:
                _tell(f"{part}: {scenario}")
                for table in _one_by_one(measurement(part, options)(scenario, options)):
                    _keep(table, report, args.save, show)
        curves = [(args.growth, measure_growth), (args.grid, measure_grid)]
        for measure in (measure for wanted, measure in curves if wanted):
            for curve in _one_by_one(measure(options, tell=_tell)):
                _keep(curve, report, args.save, show)
    return report


def measurement(part: str, options: Options) -> Callable[[str, Options], Iterable[dict[str, Any]]]:
    """What measures a part: on a GPU some are about something else than on a CPU, where that has to be asked for."""
    on_gpu = options.device == "cuda"
    if part == "update" and (on_gpu or options.drawn):
        return measure_drawn_updates
    if part == "train" and (on_gpu or options.runners):
        return measure_scaling
    return PARTS[part]


def _one_by_one(found: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each as soon as it is measured. Whatever an environment prints meanwhile shall not get into the JSON."""
    found = iter(found)
    while True:
        with contextlib.redirect_stdout(sys.stderr):
            one = next(found, None)
        if one is None:
            return
        yield one


def _keep(found: dict[str, Any], report: dict[str, Any], file: str | None, show: Callable[[str], None]) -> None:
    """Puts a table or a curve into the report, which is saved: what is measured is kept, whatever comes."""
    is_curve = "lines" in found
    report.setdefault("growth", []).append(found) if is_curve else report["tables"].append(found)
    _save(report, file)
    show(text.growth_text(found) if is_curve else text.table_text(found))


def _print_report(report: dict[str, Any]) -> None:
    blocks = [text.machine_text(report), *map(text.table_text, report["tables"])]
    blocks += map(text.growth_text, report.get("growth") or ())
    if report.get("soak"):
        blocks.append(text.soak_text(report["soak"]))
    print("\n\n".join(blocks))


def _tell(string: str) -> None:
    """Progress, beside the report."""
    print(f"measuring {string} ...", file=sys.stderr, flush=True)


def _tell_sample(sample: Sample) -> None:
    _tell(
        f"soak: {sample.env_steps:,} env steps, {sample.rss_mb:,.0f} MB, {sample.env_steps_per_second:,.0f} env steps/s, "
        f"bare loop {sample.bare_steps_per_second:,.0f}"
    )


@contextlib.contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _save(report: dict[str, Any], file: str | None) -> None:
    if file is not None:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(json.dumps(report, indent=1))
