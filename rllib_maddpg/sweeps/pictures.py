"""Pictures of a sweep: the curves of all trials, and maps of the final metric over pairs of swept keys."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter

from rllib_maddpg.plotting.axes import plain_axes
from rllib_maddpg.plotting.curves import MeanCurve, mean_curve
from rllib_maddpg.sweeps.ranking import FAILED, FINISHED, STOPPED, Point
from rllib_maddpg.sweeps.schema import Sweep
from rllib_maddpg.sweeps.space import LISTS, LOGARITHMIC, Axis

CURVES_FILE, MAP_FILE = "curves.png", "map.png"
# The first points by rank have a colour and a place in the legend.
_COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#ff7f0e")
_OTHERS = "#b0b0b0"
_MAX_PAIRS, _MAX_CELLS = 6, 12
# Curves of more seeds than this are drawn as their mean with its band.
_MAX_CURVES = 4
_MAP = colormaps["viridis"]


def save_pictures(points: list[Point], sweep: Sweep, folder: Path) -> list[Path]:
    """Draws what can be drawn: nothing before a trial has a number."""
    if not any(trial.curve for point in points for trial in point.trials):
        return []
    files = []
    for name, draw in ((CURVES_FILE, draw_curves), *([(MAP_FILE, draw_map)] if sweep.axes else [])):
        draw(points, sweep).savefig(folder / name, dpi=120)
        files.append(folder / name)
    return files


def text_of(values: dict[str, Any]) -> str:
    """Swept values in one line."""
    return ", ".join(f"{key}={value_text(value)}" for key, value in values.items())


def value_text(value: Any) -> str:
    """A value, short."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


# ------------------------------------------------------------------------------------------ curves


def draw_curves(points: list[Point], sweep: Sweep) -> Figure:
    """The metric of all trials over env steps; the best points in colour, above the others.

    With five seeds or more the coloured lines are the means over seeds, each with the 95 % band of its mean.
    """
    figure = _figure(9, 6)
    axes = figure.subplots()
    shown = [point for point in points if point.mean is not None]
    for point in reversed(shown):
        place = point.rank - 1
        colour = _COLOURS[place] if place < len(_COLOURS) else _OTHERS
        width = 2.4 if place == 0 else 1.5 if place < len(_COLOURS) else 0.9
        band = _band(point) if place < len(_COLOURS) else None
        if band is not None:
            axes.fill_between(band.env_steps, band.low, band.high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(band.env_steps, band.mean, color=colour, linewidth=width, label=_label_of(point))
            colour, width = to_rgba(colour, 0.25), 0.7
        for n, trial in enumerate(trial for trial in point.trials if trial.curve):
            steps, values = zip(*trial.curve, strict=True)
            label = None
            if n == 0 and place < len(_COLOURS) and band is None:
                label = _label_of(point)
            marker = "o" if len(steps) == 1 else None
            axes.plot(steps, values, color=colour, linewidth=width, label=label, marker=marker, markersize=4)
            if trial.status in (STOPPED, FAILED):
                axes.plot(steps[-1:], values[-1:], "x" if trial.status == FAILED else "|", color=colour, markersize=9)
    handles, labels = axes.get_legend_handles_labels()
    handles, labels = handles[::-1], labels[::-1]
    if len(shown) > len(_COLOURS):
        handles += axes.plot([], [], color=_OTHERS)
        others = len(shown) - len(_COLOURS)
        labels.append(f"{others} other point{'s' if others > 1 else ''}")
    for status, marker in ((STOPPED, "|"), (FAILED, "x")):
        if any(trial.status == status for point in shown for trial in point.trials):
            handles += axes.plot([], [], marker, color="black", markersize=9)
            labels.append(status)
    # Below the axes: within them it would hide lines.
    figure.legend(handles, labels, loc="outside lower left", frameon=False, fontsize=9)
    seeds = f", {len(sweep.seeds)} seeds each" if len(sweep.seeds) > 1 and sweep.ranks_seeds_together else ""
    what = f"{len(points)} points{seeds}" if sweep.axes else f"{len(sweep.seeds)} seeds"
    axes.set_title(f"{sweep.env}: {what}", loc="left", fontsize=12)
    axes.set_xlabel("env steps")
    axes.set_ylabel(sweep.metric)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)
    plain_axes(axes)
    return figure


def _label_of(point: Point) -> str:
    """Of a coloured point: its rank, values, and final mean."""
    if not point.values:
        return f"mean, with the 95 % band of the mean ({point.mean:.4g})"
    return f"{'best' if point.rank == 1 else point.rank}: {text_of(point.values)} ({point.mean:.4g})"


def _band(point: Point) -> MeanCurve | None:
    """Mean of the point's curves; of those that came to the end, where there are several. None: there are too few."""
    curves = [trial for trial in point.trials if trial.curve]
    finished = [trial for trial in curves if trial.status == FINISHED]
    drawn = [np.array(trial.curve, float).T for trial in (finished if len(finished) > 1 else curves)]
    if len(curves) <= _MAX_CURVES or max(x[0] for x, _ in drawn) > min(x[-1] for x, _ in drawn):
        return None
    return mean_curve([(x, y) for x, y in drawn])


# ------------------------------------------------------------------------------------------ map


def draw_map(points: list[Point], sweep: Sweep) -> Figure:
    """The points' means over each pair of swept keys (at most six pairs); with one key, over that key."""
    shown = [point for point in points if point.mean is not None]
    pairs = list(itertools.combinations(sweep.axes, 2))[:_MAX_PAIRS]
    if not pairs:
        return _draw_one_key(shown, sweep)
    columns = min(3, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    figure = _figure(4.6 * columns + 1.2, 3.9 * rows + 0.6)
    grid = figure.subplots(rows, columns, squeeze=False)
    norm = _norm([point.mean for point in shown], sweep.mode)
    for axes, (x, y) in itertools.zip_longest(grid.flat, pairs, fillvalue=(None, None)):
        if x is None:
            axes.axis("off")
        elif _is_table(x, shown) and _is_table(y, shown):
            _draw_table(axes, x, y, shown, norm)
        else:
            _draw_scatter(axes, x, y, shown, norm)
    below = any(point.mean < norm.vmin for point in shown)
    above = any(point.mean > norm.vmax for point in shown)
    extend = ("both" if above else "min") if below else ("max" if above else "neither")
    bar = figure.colorbar(ScalarMappable(norm, _MAP), ax=list(grid.flat), shrink=0.9, extend=extend)
    bar.set_label(f"final {sweep.metric}")
    figure.suptitle(f"{sweep.env}: {_what_is_drawn(sweep, shown)}; red: best point")
    return figure


def _what_is_drawn(sweep: Sweep, points: list[Point]) -> str:
    over = ["seeds"] if len(sweep.seeds) > 1 and sweep.ranks_seeds_together else []
    if len(sweep.axes) > 2 and all(_is_table(axis, points) for axis in sweep.axes):
        over.append("the other keys")
    return f"mean over {' and '.join(over)}" if over else "each point"


def _is_table(axis: Axis, points: list[Point]) -> bool:
    return axis.kind in LISTS and len(_values(axis, points)) <= _MAX_CELLS


def _values(axis: Axis, points: list[Point]) -> list[Any]:
    """Values that occur: numbers sorted, others as in the file."""
    found = [point.values[axis.key] for point in points]
    values: list[Any] = []
    for value in axis.args if axis.kind in LISTS else found:
        if value in found and value not in values:
            values.append(value)
    return sorted(values) if all(_is_number(value) for value in values) else values


def _draw_table(axes: Axes, x: Axis, y: Axis, points: list[Point], norm: Normalize) -> None:
    xs, ys = _values(x, points), _values(y, points)
    cells: dict[tuple[int, int], list[float]] = {}
    for point in points:
        cells.setdefault((ys.index(point.values[y.key]), xs.index(point.values[x.key])), []).append(point.mean)
    table = np.full((len(ys), len(xs)), np.nan)
    for cell, means in cells.items():
        table[cell] = np.mean(means)
        red, green, blue, _ = _MAP(norm(table[cell]))
        colour = "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.45 else "white"
        size = 9 if len(xs) <= 6 else 7
        axes.text(cell[1], cell[0], f"{table[cell]:.4g}", ha="center", va="center", color=colour, fontsize=size)
    axes.imshow(table, origin="lower", aspect="auto", cmap=_MAP, norm=norm)
    axes.set_xticks(range(len(xs)), [value_text(value) for value in xs])
    axes.set_yticks(range(len(ys)), [value_text(value) for value in ys])
    axes.tick_params(length=0)
    best = points[0].values
    corner = xs.index(best[x.key]) - 0.48, ys.index(best[y.key]) - 0.48
    axes.add_patch(Rectangle(corner, 0.96, 0.96, fill=False, edgecolor=_COLOURS[0], linewidth=2.5))
    _label(axes, x, y)


def _draw_scatter(axes: Axes, x: Axis, y: Axis, points: list[Point], norm: Normalize) -> None:
    data = [_coordinates(axis, points) for axis in (x, y)]
    # The best last, so that it lies above the others.
    order = slice(None, None, -1)
    colours = [_MAP(norm(point.mean)) for point in points]
    edges = [_COLOURS[0] if point.rank == 1 else "white" for point in points]
    sizes = [130 if point.rank == 1 else 60 for point in points]
    widths = [2.2 if point.rank == 1 else 0.6 for point in points]
    axes.scatter(data[0][order], data[1][order], c=colours[order], edgecolors=edges[order], s=sizes[order], lw=widths[order])
    for axis, set_scale, set_ticks in ((x, axes.set_xscale, axes.set_xticks), (y, axes.set_yscale, axes.set_yticks)):
        _set_scale(axis, points, set_scale, set_ticks)
    axes.margins(0.08)
    axes.set_axisbelow(True)
    plain_axes(axes)
    _label(axes, x, y)


def _draw_one_key(points: list[Point], sweep: Sweep) -> Figure:
    axis = sweep.axes[0]
    figure = _figure(7, 4.5)
    axes = figure.subplots()
    xs = _coordinates(axis, points)
    order = np.argsort(xs, kind="stable")
    # Words, such as names of algorithms, have nothing between them.
    style = "-o" if all(_is_number(value) for value in _values(axis, points)) else "o"
    axes.plot(
        np.asarray(xs)[order], np.asarray([p.mean for p in points])[order], style, color=_COLOURS[1], label="mean over seeds"
    )
    for position, point in zip(xs, points, strict=True):
        finals = [trial.final for trial in point.trials if trial.final is not None]
        if len(finals) > 1:
            axes.plot([position] * len(finals), finals, ".", color=_OTHERS, zorder=1)
    axes.plot(
        xs[:1], [points[0].mean], "o", markersize=12, fillstyle="none", color=_COLOURS[0], markeredgewidth=2, label="best"
    )
    _set_scale(axis, points, axes.set_xscale, axes.set_xticks)
    axes.set_xlabel(axis.key)
    axes.set_ylabel(f"final {sweep.metric}")
    axes.set_title(f"{sweep.env}", loc="left", fontsize=12)
    axes.legend(frameon=False)
    plain_axes(axes)
    return figure


def _coordinates(axis: Axis, points: list[Point]) -> list[float]:
    """Numbers as they are, other values by their place."""
    found = [point.values[axis.key] for point in points]
    if all(_is_number(value) for value in found):
        return [float(value) for value in found]
    values = _values(axis, points)
    return [float(values.index(value)) for value in found]


def _set_scale(axis: Axis, points: list[Point], set_scale: Any, set_ticks: Any) -> None:
    values = _values(axis, points)
    if not all(_is_number(value) for value in values):
        set_ticks(range(len(values)), [value_text(value) for value in values])
        return
    if axis.kind in LOGARITHMIC or (values[0] > 0 and values[-1] / values[0] >= 8):
        set_scale("log")
    if _is_table(axis, points):
        set_ticks(values, [value_text(value) for value in values])
        set_ticks([], minor=True)


def _label(axes: Axes, x: Axis, y: Axis) -> None:
    axes.set_xlabel(x.key)
    axes.set_ylabel(y.key)


def _norm(values: list[float], mode: str) -> Normalize:
    """Colours for the better part: a run that has gone wrong altogether would leave all others one colour."""
    low, high = min(values), max(values)
    if len(values) > 5:
        low, high = np.percentile(values, [15, 100] if mode == "max" else [0, 85])
    return Normalize(low, high if high > low else low + 1e-9)


def _figure(width: float, height: float) -> Figure:
    """Without pyplot, whose global state is not ours."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)
