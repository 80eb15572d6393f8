"""Algorithms that learn on a device from rows that lie there, and when that device is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.games import make_config
from rllib_maddpg.config.maddpg_config import MADDPGConfig


def config_on_device(scenario: str, device: str, graph: bool | str = "auto", **given: Any) -> MADDPGConfig:
    """`make_config`, with the rows beside the Learner.

    Args:
        scenario: Of mpe2.
        device: "cpu" or "cuda".
        graph: `cuda_graph`.
        **given: As `make_config` takes it.
    """
    config = make_config(scenario, device=device, **given).training(replay_buffer_config={"device": device})
    return config.training(cuda_graph=graph)


def can_graph(device: str) -> bool:
    """Whether an update can be a CUDA graph there."""
    return device == "cuda"


def waiter(device: str) -> Callable[[], None]:
    """Waits until the device has done all that it was asked for."""
    return torch.cuda.synchronize if device == "cuda" else lambda: None
