"""What a machine offers for training on a GPU, as JSON: `python -m benchmarks.device_facts [FILE]`."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import hardware
from rllib_maddpg.results.versions import versions

_QUERY = "name,memory.total,driver_version,clocks.max.sm,pcie.link.gen.current,pcie.link.width.current,utilization.gpu"


def device_facts() -> dict[str, Any]:
    """Hardware and versions; of each GPU what torch and `nvidia-smi` say, and what the shortest things on it cost."""
    return {
        "python": platform.python_version(),
        "hardware": hardware(),
        "versions": versions(),
        "torch": {
            "version": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
            "sees_a_gpu": torch.cuda.is_available(),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
            "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        },
        "nvidia_smi": _nvidia_smi(),
        "gpus": [_gpu(i) for i in range(torch.cuda.device_count())],
        "costs_us": _costs() if torch.cuda.is_available() else {},
    }


def _gpu(index: int) -> dict[str, Any]:
    found = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    return {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "memory_gib": round(total / 2**30, 1),
        "free_gib": round(free / 2**30, 1),
    }


def _nvidia_smi() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    return (done.stdout or done.stderr).strip().splitlines()


def _costs(calls: int = 2000) -> dict[str, float]:
    """Microseconds of a launch from Python, of a number that is read, and of a launch in a graph of `calls` of them."""
    x = torch.zeros(1, device="cuda")

    def seconds(work: Any) -> float:
        work()
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        return time.perf_counter() - start

    def launches() -> None:
        for _ in range(calls):
            x.add_(1.0)

    def reads() -> None:
        for _ in range(calls // 10):
            x.item()

    costs = {"launch": 1e6 * seconds(launches) / calls, "read": 1e6 * seconds(reads) / (calls // 10)}
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launches()
    return {**costs, "launch_in_a_graph": 1e6 * seconds(graph.replay) / calls}


if __name__ == "__main__":
    text = json.dumps(device_facts(), indent=1)
    print(text)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text)
