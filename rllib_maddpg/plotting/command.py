"""`rllib-maddpg plot`: mean learning curves of runs, with their 95 % band over seeds, as a PNG and a table."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

from rllib_maddpg.plotting.curve_plot import MAX_LEGEND, draw_mean_curves
from rllib_maddpg.plotting.curves import Group, MeanCurve, agents_of, find_runs, group_runs, mean_curve, read_values, smooth
from rllib_maddpg.results.output_paths import check_file, why_not_written
from rllib_maddpg.results.progress import AGENTS, TEAM

PROGRAM = "rllib-maddpg plot"
DEFAULT_FILE = "learning_curves.png"
_RETURN = "return per episode\n(mean of recent training episodes)"


def add_plot(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the command to those of `rllib-maddpg`."""
    command = commands.add_parser(
        "plot",
        parents=[common],
        help="learning curves: mean and 95 %% band over seeds",
        description="Draws learning curves. Runs that differ only in their seed are one line, their mean, with a 95 % band.",
        epilog=f"example: {PROGRAM} results/spread_s0 results/spread_s1 results/spread_s2 --per-agent --out spread.png",
    )
    add = command.add_argument
    add("runs", nargs="+", metavar="RUN", help="run folder, trial folder, or a folder with such in it (an experiment, a sweep)")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--metric", default=TEAM, metavar="KEY", help=f"any number of the results (default: {TEAM})")
    what.add_argument("--per-agent", action="store_true", help="the team's return and that of each agent, side by side")
    add("--smooth", type=int, default=1, metavar="N", help="mean of the last N results of each run (default: 1)")
    add("--out", default=DEFAULT_FILE, metavar="FILE", help=f"PNG, PDF or SVG (default: {DEFAULT_FILE})")
    command.set_defaults(run=run_plot)


def run_plot(args: argparse.Namespace, argv: list[str]) -> int:
    """Does what the command line says; returns the exit code.

    Raises:
        ValueError: On folders without results, an unknown metric, or a file that cannot be written.
    """
    if args.smooth < 1:
        raise ValueError(f"--smooth {args.smooth} must be at least 1.")
    groups = group_runs(find_runs(args.runs))
    check_file("--out", args.out)
    metrics = {TEAM: "team return"} if args.per_agent else {args.metric: args.metric}
    if args.per_agent:
        agents = sorted({agent for group in groups for run in group.runs for agent in agents_of(run)})
        metrics.update((f"{AGENTS}/{agent}", agent) for agent in agents)
    panels, notes = {}, []
    for metric, name in metrics.items():
        panels[name] = [_curve(group, metric, args.smooth, notes if metric == next(iter(metrics)) else []) for group in groups]
    envs = sorted({str(group.runs[0].settings["env"]) for group in groups})
    labels = [group.label for group in groups]
    what, ylabel = _names(args)
    band = ", mean and 95 % band over seeds" if any(len(group.runs) > 1 for group in groups) else ""
    figure = draw_mean_curves(panels, labels, f"{', '.join(envs)}: {what}{band}", ylabel)
    try:
        figure.savefig(args.out, dpi=120)
    except OSError as error:
        raise ValueError(f"--out {args.out} cannot be written: {why_not_written(error)}") from error
    _print_table(labels, next(iter(panels.values())), next(iter(metrics)))
    for note in notes:
        print(note)
    if len(groups) > MAX_LEGEND:
        print(f"{len(groups)} lines are too many for a legend; the table has them in the order of the runs.")
    print(f"Learning curves: {args.out}")
    return 0


def _names(args: argparse.Namespace) -> tuple[str, str]:
    """What is drawn, for the title, and the label of the vertical axis."""
    if args.per_agent:
        return "return", _RETURN
    if args.metric == TEAM:
        return "team return", _RETURN
    if args.metric.startswith(f"{AGENTS}/"):
        return f"return of {args.metric.removeprefix(f'{AGENTS}/')}", _RETURN
    return args.metric, args.metric


def _curve(group: Group, metric: str, window: int, notes: list[str]) -> MeanCurve:
    """The group's mean; what it leaves out goes to the notes."""
    curves = []
    for run in group.runs:
        env_steps, values = read_values(run, metric)
        curves.append((env_steps, smooth(values, window)))
    result = mean_curve(curves)
    longest = max(x[-1] for x, _ in curves)
    if result.env_steps[-1] < longest:
        notes.append(
            f"{group.label}: the mean ends at {result.env_steps[-1]:,.0f} env steps, where the shortest run does "
            f"(the longest: {longest:,.0f})."
        )
    return result


def _print_table(labels: Sequence[str], curves: Sequence[MeanCurve], metric: str) -> None:
    width = max(len("runs"), *map(len, labels))
    print(f"{metric}, last values\n{'runs':<{width}}  {'env steps':>10}  {'mean':>10}  95 % interval")
    for label, curve in zip(labels, curves, strict=True):
        low, high = curve.low[-1], curve.high[-1]
        interval = "-" if math.isnan(low) else f"[{low:.4g}, {high:.4g}]"
        print(f"{label:<{width}}  {curve.env_steps[-1]:>10,.0f}  {curve.mean[-1]:>10.4g}  {interval}")
