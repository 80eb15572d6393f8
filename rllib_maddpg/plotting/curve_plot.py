"""Draws mean learning curves of groups of runs, with bands over seeds."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from rllib_maddpg.plotting.axes import plain_axes
from rllib_maddpg.plotting.curves import MeanCurve

# More lines than that cannot be told apart by a legend.
MAX_LEGEND = 20
MAX_PANELS = 16


def draw_mean_curves(panels: dict[str, list[MeanCurve]], labels: Sequence[str], title: str, ylabel: str) -> Figure:
    """One panel for each metric, in it one line with its band for each group; a legend below all.

    Args:
        panels: Panel's title -> curve of each group.
        labels: Of the groups.
        title: Of the figure.
        ylabel: Of all panels.

    Raises:
        ValueError: If there are more panels than a page holds.
    """
    if len(panels) > MAX_PANELS:
        raise ValueError(f"{len(panels)} panels are too many for one picture (at most {MAX_PANELS}): name one with --metric.")
    columns = min(len(panels), 2 if len(panels) <= 4 else 4)
    rows = math.ceil(len(panels) / columns)
    in_legend = [textwrap.fill(label, 70) for label in labels] if len(labels) <= MAX_LEGEND else []
    longest = max((len(line) for label in in_legend for line in label.splitlines()), default=1)
    legend_columns = max(1, min(len(in_legend), 48 * (1 + columns) // (longest + 8), 4))
    heights = sorted((label.count("\n") + 1 for label in in_legend), reverse=True)
    lines = sum(heights[: math.ceil(len(in_legend) / legend_columns)])
    legend_height = 0.18 * lines
    width = 8.0 if columns == 1 else 4.6 * columns
    height = (4.2 if rows == 1 else 2.9 * rows) + 0.6 + legend_height
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    figure.suptitle(title, fontsize=13)
    colors = _colors(len(labels))
    for n, (name, curves) in enumerate(panels.items()):
        _draw(axes[n], curves, labels, colors)
        if len(panels) > 1:
            axes[n].set_title(name, loc="left", fontsize=11)
        if n % columns == 0:
            axes[n].set_ylabel(ylabel)
        if n + columns >= len(panels):
            axes[n].set_xlabel("env steps")
            axes[n].tick_params(labelbottom=True)
    for unused in axes[len(panels) :]:
        unused.set_visible(False)
    if in_legend:
        figure.legend(axes[0].lines, in_legend, loc="outside lower center", ncols=legend_columns, frameon=False, fontsize=9)
    return figure


def _draw(axes: Axes, curves: Sequence[MeanCurve], labels: Sequence[str], colors: Sequence) -> None:
    for curve, label, color in zip(curves, labels, colors, strict=True):
        marker = "o" if len(curve.env_steps) < 10 else None
        axes.plot(curve.env_steps, curve.mean, color=color, label=label, linewidth=1.8, marker=marker, markersize=4)
        if np.isfinite(curve.low).any():
            axes.fill_between(curve.env_steps, curve.low, curve.high, color=color, alpha=0.2, linewidth=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(x=0.01)
    plain_axes(axes)


def _colors(count: int) -> Sequence:
    return colormaps["tab10"].colors[:count] if count <= 10 else list(colormaps["turbo"](np.linspace(0.05, 0.95, count)))
