"""How all axes of this package look."""

from __future__ import annotations

from matplotlib.axes import Axes


def plain_axes(axes: Axes) -> None:
    """A light grid, and no frame above and on the right."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
