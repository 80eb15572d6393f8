"""A report as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Cells = Sequence[Sequence[str]]


def table_text(table: dict[str, Any]) -> str:
    """One comparison: medians with their spread, what each contender does, ratios and bars."""
    head = ["", f"median [{table['unit']}]", "min .. max"]
    cells = [head, *([row["name"], number(row["median"]), span(row)] for row in table["rows"])]
    lines = [f"{table['title']}: {table['setting']}", *aligned(cells)]
    if table["claims"]:
        lines += ["", *claims_text(table["claims"])]
    lines += ["", *(f"  {row['name']}: {row['does']}." for row in table["rows"])]
    return "\n".join([*lines, *(f"  {note}" for note in table["notes"])])


def claims_text(claims: Sequence[dict[str, Any]]) -> list[str]:
    """Ratios with the spread of the single rounds, bars, and whether they are met."""
    return aligned([["", "of medians", "rounds", "bar", ""], *(claim_cells(claim) for claim in claims)])


def claim_cells(claim: dict[str, Any]) -> list[str]:
    """Text, value, spread, bar, and the verdict."""
    spread = f"{number(claim['low'])} .. {number(claim['high'])}"
    bar = "" if claim["limit"] is None else f"{claim['relation']} {number(claim['limit'])}"
    return [claim["text"], number(claim["value"]), spread, bar, {True: "met", False: "missed", None: ""}[claim["met"]]]


def growth_text(curve: dict[str, Any]) -> str:
    """One curve as a table: a line for each x."""
    return "\n".join(
        [f"{curve['title']} over {curve['x_name']}: {curve['setting']}, {curve['unit']}", *aligned(growth_cells(curve))]
    )


def growth_cells(curve: dict[str, Any]) -> list[list[str]]:
    """x, then the median of each contender, then the ratio of the first to the second; below it the exponents.

    A line may end before the others. With "not_a_ratio", two lines are not to be compared.
    """
    lines = curve["lines"]
    two = len(lines) == 2 and not curve.get("not_a_ratio")
    head = [curve["x_name"], *(line["name"] for line in lines), *([f"{lines[0]['name']} / {lines[1]['name']}"] if two else [])]
    cells = [head]
    for i, x in enumerate(curve["x"]):
        medians = [line["points"][i]["median"] if i < len(line["points"]) else None for line in lines]
        shown = ["" if median is None else number(median) for median in medians]
        cells.append([f"{x:,}", *shown, *([number(medians[0] / medians[1])] if two else [])])
    exponents = ["" if line["exponent"] is None else f"~ x^{line['exponent']:.2f}" for line in lines]
    return [*cells, ["grows", *exponents, *([""] if two else [])]]


def soak_text(soak: dict[str, Any]) -> str:
    """The verdicts of the long run."""
    return "\n".join([f"Soak: {soak['setting']}", *claims_text(soak["claims"])])


def machine_text(report: dict[str, Any]) -> str:
    """One line: hardware and versions."""
    hardware = report["hardware"]
    gpu = ", ".join(hardware["gpu"]) if hardware["gpu"] else "no GPU"
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    threads = report["options"]["torch_threads"]
    return (
        f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']:g} GiB, {gpu}; torch threads: {threads}; "
        f"load average at the start: {hardware['load_average']:g}; {versions}"
    )


def span(row: dict[str, Any]) -> str:
    """Smallest and largest of the repeats."""
    return f"{number(row['min'])} .. {number(row['max'])}"


def number(value: float) -> str:
    """Three digits that count, and no exponent."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    digits = 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4 if size >= 0.01 else 5
    return f"{value:.{digits}f}"


def aligned(cells: Cells) -> list[str]:
    """Columns of equal width: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return [
        "  "
        + "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in cells
    ]
