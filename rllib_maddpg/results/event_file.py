"""TensorBoard events of a run, as well as the disk allows: training never waits for them, nor fails because of them."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from rllib_maddpg.results.output_paths import why_not_written

logger = logging.getLogger(__name__)


class EventFile:
    """A file of scalars.

    tensorboardX's `SummaryWriter` writes from a thread, behind a queue of ten: once the thread has died of a full disk, whoever
    adds an event waits for ever.
    """

    def __init__(self, folder: Path, purge_step: int):
        """TensorBoard forgets what earlier files of the folder have at `purge_step` or later."""
        self._folder = folder
        self._writer: EventsWriter | None = None
        with self._best_effort():
            # Resumed within a second, a run must not overwrite the file. TensorBoard reads files in the order of their names.
            self._writer = EventsWriter(str(folder / "events"), filename_suffix=f".{time.time_ns()}")
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(wall_time=time.time(), step=purge_step, session_log=start))
            self._writer.flush()

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Adds finite numbers, tag -> value, at one step."""
        with self._best_effort():
            if self._writer is not None:
                now = time.time()
                for tag, value in scalars.items():
                    self._writer.write_event(Event(wall_time=now, step=step, summary=scalar(tag, value)))
                self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        with self._best_effort():
            if self._writer is not None:
                self._writer.close()
        self._writer = None

    @contextlib.contextmanager
    def _best_effort(self):
        try:
            yield
        except OSError as error:
            writer, self._writer = self._writer, None
            logger.warning("No more TensorBoard events of %s are written: %s.", self._folder, why_not_written(error))
            with contextlib.suppress(OSError):  # what is left in its memory finds no room either
                if writer is not None:
                    writer.close()
