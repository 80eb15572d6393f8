"""What `rllib-maddpg train` shows while it trains."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rllib_maddpg.results.progress import Progress
from rllib_maddpg.results.run_folder import short_path
from rllib_maddpg.runs.reporting import MAX_AGENT_COLUMNS
from rllib_maddpg.runs.run import Observer


class Screen(Observer):
    """Progress of a run: one line that is rewritten on a terminal, else a line each 10 % or 30 seconds."""

    def __init__(self) -> None:
        self._on_terminal = sys.stdout.isatty()
        self._last_time = self._last_line = time.monotonic()
        self._last_steps = 0
        self._rate = 0.0  # env steps per second, smoothed
        self._tenths = 0
        self._line_is_open = False
        self._evaluates = False

    def started(self, folder: Path, env_steps: int, total: int) -> None:
        verb = "Resuming" if env_steps else "Training"
        print(f"{verb} in {short_path(folder)}: {env_steps:,} of {total:,} env steps are made.", flush=True)
        self._last_steps, self._tenths = env_steps, 10 * env_steps // total
        self._last_time = self._last_line = time.monotonic()

    def iterated(self, env_steps: int, total: int, result: dict[str, Any]) -> None:
        now = time.monotonic()
        rate = (env_steps - self._last_steps) / max(now - self._last_time, 1e-9)
        self._rate = rate if not self._rate else 0.8 * self._rate + 0.2 * rate
        self._last_time, self._last_steps = now, env_steps
        share = min(env_steps / total, 1.0)
        left = _clock(max(total - env_steps, 0) / max(self._rate, 1e-9))
        progress = replace(Progress.of(result), env_steps=env_steps)
        if self._on_terminal:
            columns = shutil.get_terminal_size().columns
            numbers = progress_text(progress, total, self._rate, left, room=columns - 6)
            room = min(30, columns - len(numbers) - 12)
            bar = f"[{'#' * round(room * share):<{room}}] " if room >= 5 else ""
            line = f"{bar}{share:4.0%} {numbers}"[: columns - 1]
            print(f"\r{line}\x1b[K", end="", flush=True)
            self._line_is_open = True
        elif int(10 * share) > self._tenths or now - self._last_line >= 30:
            self._tenths, self._last_line = int(10 * share), now
            print(f"{share:4.0%} {progress_text(progress, total, self._rate, left)}", flush=True)

    def evaluating(self, episodes: int, seconds: float) -> None:
        self.finish()
        self._evaluates = True
        print(f"Playing {episodes} episodes without noise, for {seconds:.1f} s at most; Ctrl-C skips them.", flush=True)

    def finish(self) -> None:
        """Ends the line that was rewritten."""
        if self._line_is_open:
            print()
            self._line_is_open = False

    def stopping(self) -> None:
        saving = b"\nStopping after this iteration, then saving. Press Ctrl-C again to stop at once.\n"
        # A signal handler may have come in the middle of a `print`, which cannot be entered twice. The terminal may be gone.
        with contextlib.suppress(OSError):
            os.write(2, b"\nNo more episodes.\n" if self._evaluates else saving)


def progress_text(progress: Progress, total: int, rate: float, left: str, room: int | None = None) -> str:
    """One line of numbers; in `room` characters what matters less is left out: updates, replay fill, returns of agents."""
    agents = ", ".join(f"{agent} {value:,.1f}" for agent, value in progress.agents.items())
    parts = [
        f"{progress.env_steps:,.0f} / {total:,} env steps",
        f"return {progress.team:,.2f}",
        f"({agents})" if 1 < len(progress.agents) <= MAX_AGENT_COLUMNS else "",
        f"{rate:,.0f} steps/s",
        f"replay {progress.fill:.0%} full" if not math.isnan(progress.fill) else "",
        f"{progress.updates:,.0f} updates" if not math.isnan(progress.updates) else "",
        f"ETA {left}",
    ]
    for part in (None, 5, 4, 2):
        if part is not None:
            parts[part] = ""
        line = "   ".join(filter(None, parts)).replace("   (", " (")
        if room is None or len(line) <= room:
            break
    return line


def _clock(seconds: float) -> str:
    if seconds >= 100 * 3600:
        return "-"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
