"""A long run: does resident memory stay where it is once the replay buffer is full, and does the speed?

Machines are shared, so at each sample the bare environment is run for a moment: speed is judged as a ratio to it.
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

from rllib_maddpg.bench.compare import Claim, seconds_per_unit
from rllib_maddpg.bench.games import BareLoop, built, make_config
from rllib_maddpg.bench.options import Options
from rllib_maddpg.bench.train import env_steps_of

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
        bare_steps_per_second: Of the bare environment, just now.
    """

    env_steps: int
    seconds: float
    rss_mb: float
    env_steps_per_second: float
    bare_steps_per_second: float


def measure_soak(
    options: Options, *, interval: int = INTERVAL, tell: Callable[[Sample], None] = lambda sample: None
) -> dict[str, Any]:
    """Trains the first scenario in one process, one update each 100 env steps.

    Args:
        interval: Env steps from one sample to the next.
        tell: Is given each sample as it is taken.

    Raises:
        ValueError: If the run would end before the buffer has been full for some samples.
    """
    least = options.rows + 8 * interval
    if options.soak_env_steps < least:
        raise ValueError(
            f"--soak-env-steps {options.soak_env_steps} must be at least {least}: the buffer of {options.rows} rows "
            "has to be full for a while."
        )
    scenario = options.scenarios[0]
    config = make_config(scenario, num_envs=options.num_envs, batch=options.batch, rows=options.rows)
    bare, process, samples = BareLoop(scenario), psutil.Process(), []
    with built(config) as algo:
        env_steps = last_env_steps = 0
        spent = last_spent = 0.0
        while env_steps < options.soak_env_steps:
            start = time.perf_counter()
            env_steps = env_steps_of(algo.train())
            spent += time.perf_counter() - start
            if env_steps - last_env_steps < interval:
                continue
            speed = (env_steps - last_env_steps) / (spent - last_spent)
            last_env_steps, last_spent = env_steps, spent
            bare_speed = 1 / seconds_per_unit(bare.run, min(options.seconds, 0.5))
            samples.append(Sample(env_steps, spent, process.memory_info().rss / 1e6, speed, bare_speed))
            tell(samples[-1])
    setting = f"{scenario}, {options.num_envs} envs, buffer of {options.rows:,} rows, an update each 100 env steps"
    return {
        "setting": setting,
        "capacity": options.rows,
        "samples": [asdict(sample) for sample in samples],
        "claims": [claim.to_dict() for claim in claims_of(samples, options.rows)],
    }


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
    return [
        Claim("growth of resident memory with a full buffer", *growth, "<=", MAX_GROWTH),
        Claim("time of an env step, as a ratio to the bare loop's: change", *slowdown, "<=", MAX_SLOWDOWN),
    ]


def write_csv(soak: dict[str, Any], file: str | Path) -> None:
    """All samples, one a line."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    with Path(file).open("w", newline="") as f:
        writer = csv.DictWriter(f, list(soak["samples"][0]))
        writer.writeheader()
        writer.writerows(soak["samples"])
