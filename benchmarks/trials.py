"""Many trials that train at the same time, each in a process of its own as with Tune, and what they do together in a window."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
import torch

from benchmarks.scaling import ENV_STEPS, UPDATES, set_ratio, updates_of
from benchmarks.train import env_steps_of, warm_up
from rllib_maddpg.config.maddpg_config import MADDPGConfig

# Seconds until all have been told to train.
_LEAD = 0.3


class Trial:
    """An actor that has an algorithm, as a trial of Tune is one; arguments: its config, and torch's threads."""

    def __init__(self, config: MADDPGConfig, torch_threads: int):
        torch.set_num_threads(torch_threads)
        self._algo = config.build_algo()

    def warm_up(self) -> None:
        """Trains until learning has started."""
        warm_up(self._algo)
        self._counts = _counts_of(self._algo.train())

    def set_ratio(self, env_steps: int) -> None:
        """Changes `num_env_steps_per_update`."""
        set_ratio(self._algo, env_steps)

    def train_until(self, end: float) -> list[tuple[float, int, int]]:
        """Trains until the machine's monotonic clock is past `end`.

        Returns:
            Clock, env steps and updates of the whole life, at the beginning and after each iteration.
        """
        found = [(time.monotonic(), *self._counts)]
        while found[-1][0] <= end:
            self._counts = _counts_of(self._algo.train())
            found.append((time.monotonic(), *self._counts))
        return found

    def stop(self) -> None:
        """Stops the algorithm."""
        self._algo.stop()


def _counts_of(result: dict[str, Any]) -> tuple[int, int]:
    return env_steps_of(result), updates_of(result)


class Trials:
    """Trials that are alive at the same time; those that are not asked to train take no time of the machine.

    Attributes:
        start_up: Seconds from nothing until all of them learn.
    """

    def __init__(self, configs: Sequence[MADDPGConfig], torch_threads: int, gpus: float = 0.0):
        """
        Args:
            configs: Of each.
            torch_threads: Of each process.
            gpus: Of each process.
        """
        start = time.monotonic()
        # Without cores of Ray's, or they would wait for those of trials that do nothing now.
        self._actors = [ray.remote(num_cpus=0, num_gpus=gpus)(Trial).remote(config, torch_threads) for config in configs]
        self._all("warm_up")
        self.start_up = time.monotonic() - start

    def __len__(self) -> int:
        return len(self._actors)

    def set_ratio(self, env_steps: int) -> None:
        """Changes `num_env_steps_per_update` of all."""
        self._all("set_ratio", env_steps)

    def measure(self, seconds: float) -> dict[str, float]:
        """What all of them do together in so many seconds, by unit, a second.

        Each trains before the window begins and until after it has ended, so none has the machine for itself within it. What an
        iteration did is taken as evenly spread over it.
        """
        begin = time.monotonic() + _LEAD
        done = [actor.train_until.remote(begin + seconds) for actor in self._actors]
        return rates(ray.get(done), begin, begin + seconds)

    def stop(self) -> None:
        """Stops all."""
        self._all("stop")
        for actor in self._actors:
            ray.kill(actor)

    def _all(self, method: str, *args: Any) -> list:
        return ray.get([getattr(actor, method).remote(*args) for actor in self._actors])


def rates(found: Sequence[Sequence[tuple[float, int, int]]], begin: float, end: float) -> dict[str, float]:
    """Env steps and updates a second of all trials together between two times.

    Args:
        found: Of each trial what `Trial.train_until` returns.
        begin, end: Of the window.
    """
    sums = np.zeros(2)
    for trial in found:
        clock, *counts = np.array(trial, float).T
        sums += [np.diff(np.interp([begin, end], clock, values))[0] for values in counts]
    return dict(zip((ENV_STEPS, UPDATES), (sums / (end - begin)).tolist(), strict=True))
