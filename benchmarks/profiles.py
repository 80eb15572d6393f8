"""Where the time of an update goes on a device: torch's profiler as a table, with a summary of what matters."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.devices import waiter

_CALLS = 10


def write_profile(folder: Path, name: str, call: Callable[[], int], device: str) -> Path:
    """Writes a text file: per update the wall time, the device's time, kernels, launches and transfers, then all operations.

    Args:
        folder: Made if it is not there.
        name: What is profiled; also the file's name.
        call: Makes updates and returns how many.
        device: "cpu" or "cuda".
    """
    wait = waiter(device)
    call()
    wait()
    start = time.perf_counter()
    updates = sum(call() for _ in range(_CALLS))
    asked = time.perf_counter() - start
    wait()
    wall = time.perf_counter() - start
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=activities) as profiler:
        for _ in range(_CALLS):
            call()
        wait()
    found = profiler.key_averages()
    lines = [
        f"{name}: {updates} updates",
        f"wall time, not profiled: {1e6 * wall / updates:.1f} us an update; of this until the host was done: "
        f"{1e6 * asked / updates:.1f} us",
        *(f"{what}: {count / updates:.1f} an update, {us / updates:.1f} us an update" for what, count, us in summary(found)),
        "",
        found.table(sort_by="self_device_time_total" if device == "cuda" else "self_cpu_time_total", row_limit=60),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name.replace(', ', '_').replace(' ', '_')}.txt"
    file.write_text("\n".join(lines))
    return file


def summary(found: Any) -> list[tuple[str, int, float]]:
    """What the profiler has found, in a few sums: what, how often, and microseconds in all."""
    on_device = [e for e in found if e.device_type == DeviceType.CUDA and not e.key.startswith("ProfilerStep")]
    copies = {way: [e for e in on_device if e.key.startswith(f"Memcpy {way}")] for way in ("HtoD", "DtoH", "DtoD")}
    kernels = [e for e in on_device if not e.key.startswith(("Memcpy", "Memset"))]
    calls = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
    waits = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
    rows = [("kernels", kernels), *((f"copies {way}", events) for way, events in copies.items())]
    sums = [(what, sum(e.count for e in events), sum(e.self_device_time_total for e in events)) for what, events in rows]
    for what, names in (("launches", calls), ("waits of the host", waits)):
        events = [e for e in found if e.key in names]
        sums.append((what, sum(e.count for e in events), sum(e.self_cpu_time_total for e in events)))
    host = [e for e in found if e.device_type == DeviceType.CPU]
    sums.append(("operations of the host", sum(e.count for e in host), sum(e.self_cpu_time_total for e in host)))
    return sums
