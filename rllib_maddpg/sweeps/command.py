"""`rllib-maddpg sweep`: reads its command line, sweeps, and prints what came out."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

from rllib_maddpg.results.run_folder import BEST_CHECKPOINT, short_path
from rllib_maddpg.runs.reporting import MADDPGReporter
from rllib_maddpg.sweeps.pictures import text_of
from rllib_maddpg.sweeps.ranking import RESULTS_FILE, UNFINISHED
from rllib_maddpg.sweeps.resources import Placement
from rllib_maddpg.sweeps.run import SweepObserver, SweepOptions, SweepSummary, run_sweep
from rllib_maddpg.sweeps.schema import Sweep

PROGRAM = "rllib-maddpg sweep"
_BEST_SHOWN = 5


def add_sweep(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the command to those of `rllib-maddpg`."""
    command = commands.add_parser(
        "sweep",
        parents=[common],
        help="train over a search space given as a YAML file; ranks, draws, resumes",
        description="Trains many runs as a YAML file says (see tune_configs/). Ctrl-C stops; --resume goes on.",
        epilog=f"example: {PROGRAM} tune_configs/grid_small.yaml --out results/grid_small",
    )
    add = command.add_argument
    add("file", metavar="FILE", help="YAML file with env, settings, search_space, seeds, search, scheduler, stop, ...")
    add("--num-samples", type=_positive, metavar="N", help="points to draw (default: what the file says)")
    add("--max-concurrent", type=_positive, metavar="K", help="trials at the same time (default: as many as there is room for)")
    add("--resume", action="store_true", help="go on with the unfinished trials of the sweep in the folder")
    add("--out", metavar="DIR", help="folder of the sweep, new or empty (default: results/NAME_OF_FILE)")
    add("--address", metavar="ADDRESS", help="HOST:PORT of a Ray cluster's head, or auto (default: this machine)")
    command.set_defaults(run=run)


def run(args: argparse.Namespace, argv: list[str]) -> int:
    """Does what the command line says.

    Returns:
        Exit code: 0 done, 1 a trial failed, 130 stopped.

    Raises:
        ValueError: If file, folder or machine do not allow the sweep.
    """
    names = ("file", "out", "resume", "num_samples", "max_concurrent", "address")
    options = SweepOptions(**{name: getattr(args, name) for name in names}, argv=tuple(argv))
    summary = run_sweep(options, Screen(), MADDPGReporter(max_report_frequency=10), verbose=2 if args.verbose else 1)
    _print_summary(summary)
    if not summary.is_complete:
        again = [*options_again(options), "--resume"]
        left = summary.sweep.num_trials - sum(trial.status != UNFINISHED for trial in summary.trials)
        print(f"\nStopped with {left} of {summary.sweep.num_trials} trials left. Continue with: {shlex.join(again)}")
        return 128 + signal.SIGINT
    return 1 if summary.failed else 0


def options_again(options: SweepOptions) -> list[str]:
    """The words of the command for the same sweep."""
    words = ["rllib-maddpg", "sweep", options.file]
    for name in ("num_samples", "max_concurrent", "out", "address"):
        value = getattr(options, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words


class Screen(SweepObserver):
    """Tells how a sweep begins."""

    def started(self, folder: Path, sweep: Sweep, placement: Placement) -> None:
        points = f"{sweep.num_points} point{'s' if sweep.num_points > 1 else ''}"
        seeds = f" x {len(sweep.seeds)} seeds" if len(sweep.seeds) > 1 else ""
        share = placement.num_gpus_per_learner
        where = f", each with {share:g} GPU" if share else ", on the CPU"
        if placement.shared_gpus is not None:
            where = f", all in one shared Learner on {'a GPU' if placement.shared_gpus else 'the CPU'}"
        print(
            f"Sweep in {short_path(folder)}: {points}{seeds} of {sweep.env_steps:,} env steps, "
            f"{placement.concurrent} at a time{where}.",
            flush=True,
        )


def _print_summary(summary: SweepSummary) -> None:
    sweep = summary.sweep
    for trial in summary.failed:
        where = short_path(summary.folder / trial.name)
        values = text_of({**trial.values, "seed": trial.seed})
        print(f"Trial failed at {trial.env_steps:,} env steps: {values}: {trial.error} ({where})", file=sys.stderr)
    ranked = [point for point in summary.points if point.mean is not None]
    if not ranked:
        print(f"No trial has a {sweep.metric} yet.", file=sys.stderr)
        return
    what = f"Best of {len(ranked)} points" if sweep.axes else "Mean over seeds"
    print(f"\n{what} by {sweep.metric} ({sweep.mode}):")
    for point in ranked[:_BEST_SHOWN]:
        seeds = [f"{trial.seed}: {trial.final:.2f}" for trial in point.trials if trial.final is not None]
        spread = f"   seeds {', '.join(seeds)}" if len(seeds) > 1 else ""
        print(f"{point.rank:>3}. {point.mean:>10.3f}   {text_of(point.values)}{spread}")
    if summary.best is not None:
        print(f"\nBest config: {text_of(ranked[0].values)}" if sweep.axes else f"\nBest seed: {summary.best.seed}")
        print(f"Best checkpoint: {short_path(summary.folder / BEST_CHECKPOINT)} (of {summary.best.name})")
    files = ", ".join([RESULTS_FILE, "best.json", *(file.name for file in summary.pictures)])
    print(f"Sweep folder: {short_path(summary.folder)} ({files})")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return number
