"""An algorithm outside of Tune, which is stopped and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from ray.rllib.algorithms.algorithm import Algorithm


@contextlib.contextmanager
def stopped_after(algo: Algorithm) -> Iterator[Algorithm]:
    """Stops the algorithm at the end."""
    try:
        yield algo
    finally:
        algo.stop()
        # Tune's base class makes a folder for each algorithm that is built outside of Tune; nothing goes there.
        with contextlib.suppress(OSError):
            os.rmdir(algo.logdir)
