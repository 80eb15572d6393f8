"""Standard output and error that outlive their reader: a run goes on when nobody reads what it prints."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

# A pipe whose reader has ended (`| head -1`), a terminal that is closed. Windows says EINVAL for the first.
_NOBODY_READS = {errno.EPIPE, errno.EIO, errno.ENXIO, errno.EINVAL}


class GuardedStream:
    """A text stream; after the first error in writing, all that is written to it vanishes.

    Attributes:
        error: What was raised; None: nothing, or only that nobody reads.
    """

    def __init__(self, stream: TextIO | None):
        """None: a stream that was closed before the program began, as Python says it."""
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        self._guard("write", text)
        return len(text)

    def flush(self) -> None:
        self._guard("flush")

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _guard(self, method: str, *args: str) -> None:
        if self._stream is None:
            return
        try:
            getattr(self._stream, method)(*args)
        except OSError as error:
            if error.errno not in _NOBODY_READS:
                self.error = error
            self._let_the_rest_vanish()

    def _let_the_rest_vanish(self) -> None:
        # What is left in the stream's memory would raise again, at the latest when Python ends.
        stream, self._stream = self._stream, None
        with contextlib.suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)


@contextlib.contextmanager
def guarded_output() -> Iterator[GuardedStream]:
    """Guards `sys.stdout` and `sys.stderr` until the end; gives the guard of `sys.stdout`."""
    out, error = GuardedStream(sys.stdout), GuardedStream(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            yield out
        finally:
            out.flush()
            error.flush()
