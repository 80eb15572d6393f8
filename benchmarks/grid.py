"""How long an update takes over rows and agents: on the CPU, and on a GPU if that is the device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.compare import Contender, measure_in_turn, seconds_per_unit, summary
from benchmarks.devices import can_graph, config_on_device, waiter
from benchmarks.drawn_update import updates_of
from benchmarks.games import built, fill
from benchmarks.growth import SCENARIO, exponent
from benchmarks.options import Options

TITLE = "Update by device"
# Updates of new sizes until they are recorded, and one more.
_BEFORE_A_GRAPH = 4


@dataclass(frozen=True)
class Sizes:
    """The points that are measured.

    Attributes:
        agents: One line for each number and device.
        batches: Joint rows of an update, rising.
        seconds: A line ends before an update that would take longer, by what the one before it took.
    """

    agents: Sequence[int] = (3, 6, 12, 24)
    batches: Sequence[int] = (256, 512, 1024, 2048, 4096, 8192, 16384)
    seconds: float = 0.5


def measure_grid(
    options: Options, sizes: Sizes | None = None, tell: Callable[[str], None] = lambda text: None
) -> Iterator[dict[str, Any]]:
    """One curve, in ms per update, from rows in the buffer to new weights. Devices take turns at each point.

    Args:
        sizes: The points; None: the default ones.
        tell: Is told of each number of agents before it is measured.
    """
    sizes = sizes or Sizes()
    devices = list(dict.fromkeys(["cpu", options.device]))
    lines = []
    for at, agents in enumerate(sizes.agents):
        tell(f"an update with {agents} agents on {' and '.join(devices)}")
        for device, points in _points(options, sizes, agents, devices).items():
            medians = [p["median"] for p in points]
            does = "draw and learner_group.update(batch=...)" + (", as a CUDA graph" if can_graph(device) else "")
            line = {"name": f"{agents} agents, {device}", "does": does, "color": at, "dashed": device == "cpu"}
            lines.append({**line, "exponent": exponent(sizes.batches[: len(points)], medians), "points": points})
    setting = f"{SCENARIO}, networks of 2 x 64, torch threads: {options.torch_threads}"
    fixed = {"title": TITLE, "x_name": "rows a batch", "unit": "ms per update", "setting": setting}
    yield {**fixed, "x": list(sizes.batches), "lines": lines, "not_a_ratio": True}


def _points(options: Options, sizes: Sizes, agents: int, devices: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """By device; a line that has become too slow is shorter."""
    most = max(1000, *sizes.batches)  # a fragment has to fit, too
    found: dict[str, list[dict[str, Any]]] = {device: [] for device in devices}
    with contextlib.ExitStack() as stack:
        algos = {}
        for device in devices:
            given = {"num_envs": options.num_envs, "batch": options.batch, "rows": most, "env_config": {"N": agents}}
            algos[device] = stack.enter_context(built(config_on_device(SCENARIO, device, **given)))
            fill(algos[device], most)
        for at, rows in enumerate(sizes.batches):
            contenders = []
            for device, algo in algos.items():
                before = 1e-3 * found[device][-1]["median"] * rows / sizes.batches[at - 1] if at and found[device] else 0.0
                if len(found[device]) == at and before <= sizes.seconds:
                    call = updates_of(algo, rows=rows, reports=False)
                    for _ in range(_BEFORE_A_GRAPH if can_graph(device) else 0):
                        call()
                    contenders.append(Contender(device, "", _milliseconds(call, options.seconds, device)))
            for device, repeats in measure_in_turn(contenders, options.repeats).items():
                found[device].append(summary(repeats))
    return found


def _milliseconds(call: Callable[[], int], seconds: float, device: str) -> Callable[[], float]:
    return lambda: 1e3 * seconds_per_unit(call, seconds, waiter(device))
