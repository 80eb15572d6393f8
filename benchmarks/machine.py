"""What a measurement was made on: hardware and versions."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import psutil
import torch


def hardware() -> dict[str, Any]:
    """CPU model, cores this process may use, memory (GiB), load average of the last minute, and GPU names."""
    return {
        "cpu": cpu_model(),
        "cores": len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average": round(psutil.getloadavg()[0], 2),
        "gpu": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or None,
        "system": platform.platform(),
    }


def cpu_model() -> str:
    """The model's name where the system tells it, else the architecture."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
