"""A long run: does resident memory stay where it is once the replay buffer is full, and does the speed?

Machines are shared, so the bare environment is run for a moment after each iteration: speed is judged as a ratio to it. Where a
machine is too crowded for that, the CPU time of an env step tells more, which is given without a bar.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.compare import Claim
from benchmarks.games import BareLoop, built, make_config
from benchmarks.options import Options
from benchmarks.train import env_steps_of

INTERVAL = 10_000  # env steps from one sample to the next
MAX_GROWTH, MAX_SLOWDOWN = 0.02, 0.10


@dataclass(frozen=True)
class Sample:
    """One point of the run.

    Attributes:
        env_steps: Made so far.
        seconds: Of training so far, without the calibration.
        rss_mb: Resident memory of the process, MB.
        env_steps_per_second: Since the last sample.
        bare_steps_per_second: Of the bare environment, in the same time.
        cpu_us_per_env_step: CPU time of the process since the last sample, all its threads, microseconds.
    """

    env_steps: int
    seconds: float
    rss_mb: float
    env_steps_per_second: float
    bare_steps_per_second: float
    cpu_us_per_env_step: float


@dataclass
class _Clock:
    """Env steps, seconds and CPU seconds of one kind of work, in all and at the last sample."""

    env_steps: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    last: tuple[int, float, float] = (0, 0.0, 0.0)

    def time(self, work: Callable[[], int]) -> None:
        """Does some work, which returns its env steps."""
        start, cpu_start = time.perf_counter(), time.process_time()
        env_steps = work()
        self.seconds += time.perf_counter() - start
        self.cpu_seconds += time.process_time() - cpu_start
        self.env_steps += env_steps

    def since_last(self) -> tuple[int, float, float]:
        """What has come since this was last asked."""
        now = (self.env_steps, self.seconds, self.cpu_seconds)
        last, self.last = self.last, now
        return tuple(a - b for a, b in zip(now, last, strict=True))


def measure_soak(
    options: Options,
    *,
    interval: int = INTERVAL,
    csv_file: str | Path | None = None,
    tell: Callable[[Sample], None] = lambda sample: None,
) -> dict[str, Any]:
    """Trains the first scenario in one process, one update each 100 env steps.

    Args:
        interval: Env steps from one sample to the next.
        csv_file: Where the samples go, as they are taken.
        tell: Is given each sample as it is taken.

    Raises:
        ValueError: As `check_length`.
    """
    check_length(options, interval)
    scenario = options.scenarios[0]
    config = make_config(scenario, num_envs=options.num_envs, batch=options.batch, rows=options.rows)
    bare, process, samples = BareLoop(scenario), psutil.Process(), []
    trained, calibrated = _Clock(), _Clock()
    with built(config) as algo:
        while trained.env_steps < options.soak_env_steps:
            trained.time(lambda: env_steps_of(algo.train()) - trained.env_steps)
            calibrated.time(bare.run)
            if trained.env_steps - trained.last[0] < interval:
                continue
            rss = process.memory_info().rss / 1e6
            (steps, seconds, cpu), (bare_steps, bare_seconds, _) = trained.since_last(), calibrated.since_last()
            sample = Sample(
                trained.env_steps, trained.seconds, rss, steps / seconds, bare_steps / bare_seconds, 1e6 * cpu / steps
            )
            samples.append(sample)
            tell(samples[-1])
            if csv_file is not None:
                write_csv([asdict(sample) for sample in samples], csv_file)
    setting = f"{scenario}, {options.num_envs} envs, buffer of {options.rows:,} rows, an update each 100 env steps"
    return {
        "setting": setting,
        "capacity": options.rows,
        "samples": [asdict(sample) for sample in samples],
        "claims": [claim.to_dict() for claim in claims_of(samples, options.rows)],
    }


def check_length(options: Options, interval: int = INTERVAL) -> None:
    """Raises a ValueError if the run would end before the buffer has been full for some samples."""
    least = options.rows + 8 * interval
    if options.soak_env_steps < least:
        raise ValueError(
            f"--soak-env-steps {options.soak_env_steps} must be at least {least}: the buffer of {options.rows} rows "
            "has to be full for a while."
        )


def claims_of(samples: list[Sample], capacity: int) -> list[Claim]:
    """Growth of memory and change of speed, from the first to the last quarter of the samples with a full buffer."""
    full = [s for s in samples if s.env_steps > capacity]
    quarter = max(1, len(full) // 4)
    first, last = full[:quarter], full[-quarter:]

    def change(of: Callable[[Sample], float]) -> tuple[float, float, float]:
        start = median(map(of, first))
        changes = [of(s) / start - 1 for s in last]
        return median(changes), min(changes), max(changes)

    growth = change(lambda s: s.rss_mb)
    slowdown = change(lambda s: s.bare_steps_per_second / s.env_steps_per_second)
    cpu = change(lambda s: s.cpu_us_per_env_step)
    return [
        Claim("growth of resident memory with a full buffer", *growth, "<=", MAX_GROWTH),
        Claim("time of an env step, as a ratio to the bare loop's: change", *slowdown, "<=", MAX_SLOWDOWN),
        Claim("CPU time of an env step: change", *cpu),
    ]


def write_csv(samples: list[dict[str, Any]], file: str | Path) -> None:
    """One sample a line."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    with Path(file).open("w", newline="") as f:
        writer = csv.DictWriter(f, list(samples[0]))
        writer.writeheader()
        writer.writerows(samples)
