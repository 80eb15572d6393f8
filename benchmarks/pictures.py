"""Plots of a report: cost curves on doubly logarithmic axes, and the long run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, LogLocator, NullFormatter

from benchmarks.markdown import picture_name
from benchmarks.text import number
from rllib_maddpg.plotting.axes import plain_axes

_COLORS = ("#1f6fb4", "#888888", "#d1601f", "#3a8f4d")
_MARKERS = ("o", "s", "^", "v")


def save_pictures(report: dict[str, Any], folder: str | Path) -> dict[str, Path]:
    """Writes a PNG for each curve and for the soak run; returns name -> file."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    figures = {picture_name(curve): draw_curve(curve) for curve in report.get("growth") or ()}
    if report.get("soak"):
        figures["soak"] = draw_soak(report["soak"])
    files = {name: folder / f"{name}.png" for name in figures}
    for name, figure in figures.items():
        figure.savefig(files[name], dpi=120)
    return files


def draw_curve(curve: dict[str, Any]) -> Figure:
    """Medians as lines, smallest to largest as bars. A line may name its color, by number, and be dashed."""
    figure, (axes,) = _figure(1, f"{curve['title']} over {curve['x_name']}", curve["setting"])
    for i, line in enumerate(curve["lines"]):
        medians = [p["median"] for p in line["points"]]
        below = [p["median"] - p["min"] for p in line["points"]]
        above = [p["max"] - p["median"] for p in line["points"]]
        power = "" if line["exponent"] is None else f"  ~ x^{line['exponent']:.2f}"
        look = line.get("color", i) % len(_COLORS)
        style = {"color": _COLORS[look], "marker": _MARKERS[look], "linestyle": "--" if line.get("dashed") else "-"}
        style |= {"capsize": 3, "linewidth": 1.8, "markersize": 5}
        axes.errorbar(curve["x"][: len(medians)], medians, [below, above], label=line["name"] + power, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(curve["x_name"])
    axes.set_ylabel(curve["unit"])
    # The measured points themselves are the ticks; powers of ten would miss most of them.
    axes.xaxis.set_major_locator(FixedLocator(curve["x"]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.xaxis.set_minor_locator(FixedLocator([]))
    _show_a_decade(axes)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: number(y).rstrip("0").rstrip(".") if y < 100 else number(y)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(frameon=False, ncols=1 + len(curve["lines"]) // 4)
    return figure


def draw_soak(soak: dict[str, Any]) -> Figure:
    """Resident memory above; speed as a ratio to the bare loop below."""
    figure, (memory, speed) = _figure(2, "Soak", soak["setting"])
    samples = soak["samples"]
    env_steps = [s["env_steps"] for s in samples]
    memory.plot(env_steps, [s["rss_mb"] for s in samples], color=_COLORS[0])
    memory.set_ylabel("resident memory [MB]")
    memory.set_ylim(0, 1.15 * max(s["rss_mb"] for s in samples))
    speed.plot(env_steps, [s["env_steps_per_second"] / s["bare_steps_per_second"] for s in samples], color=_COLORS[0])
    speed.set_ylabel("env steps/s,\nas a ratio to the bare loop")
    speed.set_ylim(bottom=0)
    speed.set_xlabel("env steps")
    for axes in (memory, speed):
        axes.axvline(soak["capacity"], color=_COLORS[1], linestyle="--", linewidth=1, label="buffer is full")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    memory.legend(frameon=False, loc="lower right")
    return figure


def _show_a_decade(axes: Axes) -> None:
    """Widens the y axis to a factor of ten at least: a curve that is nearly flat shall look so."""
    low, high = axes.get_ylim()
    missing = max(1.0, (10 * low / high) ** 0.5)
    axes.set_ylim(low / missing, high * missing)


def _figure(rows: int, title: str, setting: str) -> tuple[Figure, list[Axes]]:
    """Without pyplot, whose global state is not ours."""
    figure = Figure(figsize=(7, 3.0 * rows + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])
    figure.suptitle(f"{title}\n{setting}", fontsize=11)
    for a in axes:
        plain_axes(a)
    return figure, axes
