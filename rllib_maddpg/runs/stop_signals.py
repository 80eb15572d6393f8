"""Signals that end a run: the first is noted, so that what was trained can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

# A closed terminal or a lost ssh session sends SIGHUP, which Windows does not have.
_HANGUP = getattr(signal, "SIGHUP", None)
_SIGNALS = [number for number in (signal.SIGINT, signal.SIGTERM, _HANGUP) if number is not None]


class StoppedAtOnce(KeyboardInterrupt):
    """Raised by the second signal.

    Attributes:
        signal: Its number.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.signal = number


class StopSignals:
    """While entered, the first SIGINT, SIGTERM or SIGHUP is noted in `signal`.

    A further SIGINT or SIGTERM raises StoppedAtOnce. A SIGHUP that was ignored before stays so, as under `nohup`.
    """

    def __init__(self, on_first: Callable[[], None]):
        """`on_first` is called from the signal handler."""
        self.signal: int | None = None
        self._on_first = on_first
        self._old: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        # Python lets only the main thread set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                # A shell has its background jobs ignore SIGINT, without anybody having asked for that.
                if number != _HANGUP or signal.getsignal(number) is not signal.SIG_IGN:
                    self._old[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *args: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number
            self._on_first()
        elif number != _HANGUP:
            # A shell that ends passes on the SIGHUP that the terminal has sent already: it comes twice without any impatience.
            raise StoppedAtOnce(number)
