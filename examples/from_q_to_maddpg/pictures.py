"""What the scripts of the road share: their options, and how they draw."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# Where the pictures of docs/road.md lie.
PICTURES = Path(__file__).parents[2] / "docs" / "road"


def parse(text: str, args: list[str] | None) -> argparse.Namespace:
    """The options of a script: `--short` for a quick look, and `--out` for the folder of its picture."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a small part of the work, to see that it runs")
    parser.add_argument("--out", type=Path, default=PICTURES, help="folder of the picture (default: docs/road)")
    return parser.parse_args(args)


@contextmanager
def picture(name: str, options: argparse.Namespace, x: str, y: str, columns: int = 1) -> Iterator[plt.Axes]:
    """Axes to draw in, several side by side if `columns` says so; saved as `<name>.png`."""
    figure, axes = plt.subplots(1, columns, figsize=(6.4 * columns, 4.0), squeeze=False)
    yield axes[0, 0] if columns == 1 else axes[0]
    for one in axes[0]:
        one.set_xlabel(one.get_xlabel() or x)
        one.set_ylabel(one.get_ylabel() or y)
        one.grid(alpha=0.3)
        if one.get_legend_handles_labels()[0]:
            one.legend()
    figure.tight_layout()
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / f"{name}.png", dpi=110)
    plt.close(figure)
