"""A report as a Markdown page: what was measured, how, on what, and the plots."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_page import gpu_blocks
from benchmarks.text import Cells, claim_cells, growth_cells, machine_text, number, span

PART_TITLES = {
    "sampling": "Sampling",
    "replay": "Replay buffer",
    "update": "Update",
    "train": "Training",
    "scale": "Scale",
    "shared": "Shared Learner",
}
_HEAD = """# Benchmarks

What measures everything below again:

```bash
{command}
```

{date}, on {machine}.

Contenders take turns (A B C A B C ...): {repeats} rounds, {seconds:g} s for each; a first round is thrown away. Tables give the
median of the rounds and their smallest and largest. A ratio is one of medians; beside it the smallest and largest within a
single round.
"""


def write_markdown(
    report: dict[str, Any],
    file: str | Path,
    pictures: Mapping[str, Path] | None = None,
    gpu: Mapping[str, dict[str, Any]] | None = None,
) -> None:
    """Writes the page.

    Args:
        report: As `--json` prints it.
        file: The page.
        pictures: Name of a picture, see `pictures.save_pictures`, -> its file; linked from the page.
        gpu: What was measured on a GPU, see `gpu_page.load_gpu`.
    """
    folder = Path(file).parent
    folder.mkdir(parents=True, exist_ok=True)
    links = {name: Path(os.path.relpath(path, folder)).as_posix() for name, path in (pictures or {}).items()}
    Path(file).write_text(markdown(report, links, gpu))


def markdown(
    report: dict[str, Any], links: Mapping[str, str] | None = None, gpu: Mapping[str, dict[str, Any]] | None = None
) -> str:
    """The page as text; `links`: name of a picture -> its address; `gpu` as in `write_markdown`."""
    links = links or {}
    options = report["options"]
    parts = [
        _HEAD.format(
            command=report["command"],
            date=report["date"],
            machine=machine_text(report),
            repeats=options["repeats"],
            seconds=options["seconds"],
        )
    ]
    for part, title in PART_TITLES.items():
        tables = [table for table in report["tables"] if table["part"] == part]
        if tables:
            parts += [f"## {title}\n", *map(_table, tables)]
    if report.get("growth"):
        parts.append("## How cost grows\n\nThe last line of a table: the power of x that its first and last points lie on.\n")
        parts += [_curve(curve, links) for curve in report["growth"]]
    if report.get("soak"):
        soak = report["soak"]
        parts += [f"## Soak\n\n{soak['setting']}.\n", _claims(soak["claims"]), _picture(links, "soak")]
    parts += gpu_blocks(gpu or {}, _table, lambda curve: _curve(curve, links), _rows)
    return "\n".join(part for part in parts if part)


def picture_name(curve: dict[str, Any]) -> str:
    """Name of a curve's picture, fit for a file."""
    return f"{curve['title']}_over_{curve['x_name']}".lower().replace(" ", "_")


def _table(table: dict[str, Any]) -> str:
    head = ["", f"median [{table['unit']}]", "min .. max", "what it does"]
    cells = [head, *([row["name"], number(row["median"]), span(row), row["does"]] for row in table["rows"])]
    blocks = [f"### {table['title']}: {table['setting']}\n", _rows(cells)]
    if table["claims"]:
        blocks.append(_claims(table["claims"]))
    return "\n".join([*blocks, *(f"{note}\n" for note in table["notes"])])


def _curve(curve: dict[str, Any], links: Mapping[str, str]) -> str:
    heading = f"### {curve['title']} over {curve['x_name']}\n\n{curve['setting']}; {curve['unit']}.\n"
    return "\n".join(filter(None, [heading, _rows(growth_cells(curve)), _picture(links, picture_name(curve))]))


def _claims(claims: Sequence[dict[str, Any]]) -> str:
    return _rows([["", "of medians", "rounds", "bar", ""], *map(claim_cells, claims)])


def _rows(cells: Cells) -> str:
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], "|---" * len(cells[0]) + "|", *lines[1:], ""])


def _picture(links: Mapping[str, str], name: str) -> str:
    return f"![{name.replace('_', ' ')}]({links[name]})\n" if name in links else ""
