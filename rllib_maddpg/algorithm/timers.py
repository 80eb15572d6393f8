"""How long the parts of a training step take."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator

from ray.rllib.utils.metrics import TIMERS
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger


class Timers:
    """Adds up seconds, and logs their means when metrics are reported: RLlib's `log_time`, made for every call, is slower."""

    def __init__(self) -> None:
        self._seconds: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Times what is done while it is entered."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - start
            self._calls[name] += 1

    def log(self, metrics: MetricsLogger) -> None:
        """Logs the mean seconds of a call since the last time, under RLlib's keys."""
        for name, calls in self._calls.items():
            # Of these calls only; and if there are none, the last value stays.
            metrics.log_value((TIMERS, name), self._seconds[name] / calls, ema_coeff=1.0)
        self._seconds.clear()
        self._calls.clear()
