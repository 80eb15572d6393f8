"""Pictures of a run: its learning curve, and a film of some episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from PIL import Image

from rllib_maddpg.plotting.axes import plain_axes
from rllib_maddpg.plotting.curves import without_abandoned
from rllib_maddpg.results.progress import AGENTS, ENV_STEPS, TEAM
from rllib_maddpg.results.result_files import read_progress

AGENT_PREFIX = f"{AGENTS}/"
# More agents than this share one look in the legend: single lines could not be told apart.
_MAX_LEGEND = 10
_LINE_STYLES = ("-", "--", "-.", ":")


@dataclass
class LearningCurve:
    """Mean returns of training episodes (undiscounted, with exploration noise), NaN where no episode has ended yet.

    Attributes:
        env_steps: Env steps at which each value was taken, rising.
        team: Sum over agents.
        agents: Of each agent.
    """

    env_steps: list[float] = field(default_factory=list)
    team: list[float] = field(default_factory=list)
    agents: dict[str, list[float]] = field(default_factory=dict)


def read_learning_curve(folder: str | Path) -> LearningCurve:
    """Reads `progress.csv` of a run folder.

    Where a run was resumed from a checkpoint older than its last row, the rows of that abandoned part are left out.

    Raises:
        ValueError: If it has no row with a return.
    """
    rows = without_abandoned(read_progress(Path(folder)), lambda row: _number(row, ENV_STEPS))
    curve = LearningCurve([_number(r, ENV_STEPS) for r in rows], [_number(r, TEAM) for r in rows])
    if all(math.isnan(value) for value in curve.team):
        raise ValueError(f"{folder} has no learning curve: no episode has ended in it.")
    for column in sorted(c for c in rows[0] if c.startswith(AGENT_PREFIX)):
        curve.agents[column.removeprefix(AGENT_PREFIX)] = [_number(r, column) for r in rows]
    return curve


def save_learning_curve(folder: str | Path, file: str | Path, title: str) -> None:
    """Draws the learning curve of a run folder as a PNG: the team above, the agents below.

    Raises:
        ValueError: If there is nothing to draw.
    """
    figure = draw_learning_curve(read_learning_curve(folder), title)
    figure.savefig(file, dpi=120)


def draw_learning_curve(curve: LearningCurve, title: str) -> Figure:
    """The figure; without pyplot, whose global state is not ours."""
    rows = 2 if len(curve.agents) > 1 else 1
    figure = Figure(figsize=(8, 3.4 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    figure.suptitle(title, fontsize=13)
    _draw_lines(axes[0], curve.env_steps, {"all agents": curve.team}, ["black"])
    axes[0].set_title("team return", loc="left", fontsize=11)
    if rows == 2:
        colors = (
            colormaps["tab10"].colors
            if len(curve.agents) <= 10
            else colormaps["viridis"](np.linspace(0, 0.9, len(curve.agents)))
        )
        _draw_lines(axes[1], curve.env_steps, curve.agents, colors)
        axes[1].set_title("return of each agent", loc="left", fontsize=11)
        if len(curve.agents) <= _MAX_LEGEND:
            # Beside the lines: within the axes it would hide some of them.
            axes[1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, handlelength=3)
    axes[-1].set_xlabel("env steps")
    axes[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
    return figure


def _draw_lines(axes: Axes, env_steps: Sequence[float], lines: dict[str, list[float]], colors: Sequence) -> None:
    for n, ((name, values), color) in enumerate(zip(lines.items(), colors, strict=False)):
        # Agents that share a reward have the same line; styles let the ones below show through the gaps.
        style = _LINE_STYLES[n % len(_LINE_STYLES)]
        marker = "o" if len(env_steps) < 10 else None
        axes.plot(env_steps, values, style, color=color, label=name, linewidth=1.8, marker=marker, markersize=4)
    axes.set_ylabel("reward per episode,\nmean of recent training episodes")
    axes.margins(x=0.01)
    plain_axes(axes)


def save_gif(frames: Sequence[np.ndarray], file: str | Path, frames_per_second: float = 10) -> None:
    """Writes RGB frames `[height, width, 3]` uint8 as an endless GIF.

    Raises:
        ValueError: If there is no frame.
    """
    if not frames:
        raise ValueError(f"No frame to write to {file}: the environment renders none.")
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=round(1000 / frames_per_second), loop=0)


def _number(row: dict[str, str], column: str) -> float:
    text = row.get(column)
    return float(text) if text else math.nan
