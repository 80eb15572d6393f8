"""The section of the Markdown page about a GPU: what `on_gpu.sh` has measured, and empty columns for what it has not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.drawn_update import BARE, BARE_GRAPH, BARE_TO_OURS, CALLS, EAGER, GRAPH, LARGER_BATCH, MOST_MS, TO_BARE_GRAPH
from benchmarks.grid import TITLE as GRID
from benchmarks.options import SCALING, Options
from benchmarks.scaling import ENV_STEPS, LEAST_RATIO, MOST, RATIOS, UPDATES
from benchmarks.shared import COMPARED, LEAST, OWN, SHARED
from benchmarks.slots import DOES, MOST_RATIO, PASS, Sizes
from benchmarks.slots import MOST as MOST_SLOTS
from benchmarks.slots import TITLE as SLOTS
from benchmarks.text import Cells, machine_text, number

HEAD = """## On a GPU
"""
NOT_MEASURED = """Not measured yet: no GPU was at hand, so {what} empty. Six minutes on a
machine with a GPU and 16 cores fill them:

```bash
bash benchmarks/on_gpu.sh results/gpu && cp results/gpu/*.json docs/gpu/
python -m benchmarks --load docs/bench.json --gpu docs/gpu --plots docs/bench --markdown BENCHMARKS.md
```
"""
REPORTS = ("update", "train", "shared", "grid")


def load_gpu(folder: str | Path, load: Callable[[Path], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The reports that `on_gpu.sh` has left in a folder, by name; `load`: reads one."""
    files = {name: Path(folder) / f"{name}.json" for name in REPORTS}
    return {name: load(file) for name, file in files.items() if file.is_file()}


def gpu_blocks(
    reports: Mapping[str, dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
    curve: Callable[[dict[str, Any]], str],
    rows: Callable[[Cells], str],
) -> list[str]:
    """The section, as blocks of Markdown.

    Args:
        reports: As `load_gpu` returns them.
        table, curve, rows: Make Markdown of a table, of a curve and of cells.
    """
    measured = {name: r for name, r in reports.items() if name != "grid" and r["options"]["device"] == "cuda"}
    grid = next((c for c in reports.get("grid", {}).get("growth") or () if c["title"] == GRID), None)
    has_gpu_grid = grid is not None and any(line["name"].endswith("cuda") for line in grid["lines"])
    blocks = [HEAD]
    if missing := [name for name in REPORTS if name not in measured and not (name == "grid" and has_gpu_grid)]:
        which = "all" if len(missing) == len(REPORTS) else "some"
        blocks.append(NOT_MEASURED.format(what=f"{which} columns for it are"))
    for name, empty in (("update", _empty_updates), ("train", _empty_training), ("shared", _empty_shared)):
        if name in measured:
            report = measured[name]
            blocks += [f"{report['date']}, on {machine_text(report)}:\n", f"```bash\n{report['command']}\n```\n"]
            blocks += [*map(table, report["tables"]), *map(curve, report.get("growth") or ())]
        else:
            blocks += empty(rows)
    if grid is not None:
        report = reports["grid"]
        blocks += [curve(grid if has_gpu_grid else _with_empty_lines(grid))]
        blocks.append(f"{report['date']}, on {machine_text(report)}: `{report['command']}`.\n")
    return blocks


def _empty_updates(rows: Callable[[Cells], str]) -> list[str]:
    options = Options()
    names = (EAGER, GRAPH, CALLS, BARE, BARE_GRAPH)
    cells = [["ms per update", *names, "bars of ours as a graph"]]
    for batch in (options.batch, LARGER_BATCH * options.batch):
        for agents in (3, options.many_agents):
            bars = []
            if batch == options.batch:
                bars.append(f"<= {number(MOST_MS[agents])} ms")
                if agents == 3:
                    bars.append(f"<= {number(TO_BARE_GRAPH)} x the bare graph")
                    bars.append(f">= {number(BARE_TO_OURS)} x as fast as {BARE}")
            cells.append([f"{agents} agents, {batch:,} rows", *[""] * len(names), "; ".join(bars)])
    return ["### Update from a draw: simple_spread, networks of 2 x 64, rows on cuda\n", rows(cells)]


def _empty_training(rows: Callable[[Cells], str]) -> list[str]:
    columns = [f"{unit}, an update each {n}" for unit in (ENV_STEPS, UPDATES) for n in RATIOS]
    cells = [["env runners", *columns, "bar"]]
    for n in SCALING:
        bar = f">= {number(LEAST_RATIO)} x one runner at an update each {RATIOS[0]} env steps" if n == MOST else ""
        cells.append([str(n), *[""] * len(columns), bar])
    return ["### Training with many runners: simple_spread, 8 envs a runner, 1,024 rows an update, cuda\n", rows(cells)]


def _empty_shared(rows: Callable[[Cells], str]) -> list[str]:
    sizes = "simple_spread, 8 envs each, 1,024 rows an update, cuda"
    slots = [["slots", *DOES, "bar"]]
    for n in Sizes().slots:
        bar = f"{PASS}: <= {number(MOST_RATIO)} x that of one slot" if n == MOST_SLOTS else ""
        slots.append([str(n), *[""] * len(DOES), bar])
    trials = [["16 trials", OWN, SHARED, "bar"]]
    for n, unit in COMPARED.items():
        least = LEAST.get(("cuda", n))
        bar = "" if least is None else f"{SHARED} / {OWN} >= {number(least)}"
        trials.append([f"{unit}, an update each {n} env steps", "", "", bar])
    return [
        f"### {SLOTS} over slots: ms, simple_spread, 1,024 rows an update, networks of 2 x 64, cuda\n",
        rows(slots),
        f"### Trials at the same time: {sizes}\n",
        rows(trials),
    ]


def _with_empty_lines(grid: dict[str, Any]) -> dict[str, Any]:
    """With a column without numbers for each line that a GPU would have."""
    empty = [
        {**line, "name": line["name"].replace("cpu", "cuda"), "points": [], "exponent": None, "dashed": False}
        for line in grid["lines"]
    ]
    return {**grid, "lines": [*grid["lines"], *empty]}
