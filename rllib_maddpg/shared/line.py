"""The short way from a trial to a shared learner on the same machine: a Unix socket, where Ray's calls would do as well.

A call of an actor costs both processes more time than it seems: with all that Ray does for it, an eighth of what a trial of a
small game needs from one update to the next. Here it costs a third of that. Whoever cannot take this way, such as a trial on
another machine, takes Ray's.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import shutil
import socket
import struct
import tempfile
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

from ray import cloudpickle

from rllib_maddpg.shared.calls import Failed

logger = logging.getLogger(__name__)

# Before each message stands its length.
_LENGTH = struct.Struct("<Q")
# Bytes that are read ahead.
_AHEAD = 2**22


class Line:
    """The shared learner's end, in its event loop."""

    def __init__(self, answer: Callable[[int, Any], Awaitable[Any]]):
        """
        Args:
            answer: Of a slot and what it asks, what it is answered.
        """
        self._answer = answer
        self._server: asyncio.AbstractServer | None = None
        self._folder: str | None = None
        self._one_at_a_time = asyncio.Lock()  # trials come at the same time

    async def address(self) -> str | None:
        """Where trials on this machine, of this user, find it; None: they cannot."""
        async with self._one_at_a_time:
            if self._server is None:
                try:
                    self._folder = tempfile.mkdtemp(prefix="shared_learner_")  # that of the user alone
                    self._server = await asyncio.start_unix_server(self._serve, f"{self._folder}/line", limit=_AHEAD)
                except (OSError, AttributeError) as error:  # a long path, or a system without such sockets
                    logger.info("Trials call the shared learner through Ray: %s", error)
                    self.close()
                    return None
            return f"{self._folder}/line"

    def close(self) -> None:
        """Leaves nothing on the disk."""
        if self._server is not None:
            self._server.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                answer = await self._message(await reader.readexactly(length))
                writer.writelines((_LENGTH.pack(len(answer)), answer))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the trial has left, or does not want to know any more
        finally:
            writer.close()

    async def _message(self, asked: bytes) -> bytes:
        """The answer to a message; whatever goes wrong is one, too, and the line stays."""
        try:
            slot, request = pickle.loads(asked)
            return cloudpickle.dumps(await self._answer(slot, request), protocol=5)
        except Exception as error:
            return cloudpickle.dumps(Failed.of(error), protocol=5)


class LineOfTrial:
    """A trial's end."""

    def __init__(self, address: str):
        """
        Args:
            address: As `Line.address` says it.

        Raises:
            OSError: If nobody is there.
        """
        self._address = address
        self._socket: socket.socket | None = self._connected()

    def _connected(self) -> socket.socket:
        own = socket.socket(socket.AF_UNIX)
        try:
            own.connect(self._address)
        except BaseException:
            own.close()
            raise
        # Also where the trial is forgotten without a goodbye.
        self._hang_up = weakref.finalize(self, own.close)
        return own

    def ask(self, slot: int, request: Any) -> Any:
        """What the shared learner answers.

        Raises:
            OSError: If it is not there any more; `EOFError`, too.
        """
        message = cloudpickle.dumps((slot, request), protocol=5)
        try:
            if self._socket is None:
                self._socket = self._connected()
            self._socket.sendall(_LENGTH.pack(len(message)))
            self._socket.sendall(message)
            (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
            return pickle.loads(self._read(length))
        except BaseException:
            # Also for Ctrl-C: an answer that comes later is not that of the next call.
            self.close()
            raise

    def _read(self, length: int) -> bytearray:
        message = bytearray(length)
        left = memoryview(message)
        while left:
            read = self._socket.recv_into(left)
            if not read:
                raise EOFError("The shared learner has closed the connection.")
            left = left[read:]
        return message

    def close(self) -> None:
        """Hangs up; the next call begins again."""
        if self._socket is not None:
            self._hang_up()
            self._socket = None


def line_to(address: str | None) -> LineOfTrial | None:
    """A line to a shared learner; None: there is none from here."""
    if address is None:
        return None
    try:
        return LineOfTrial(address)
    except (OSError, AttributeError) as error:
        logger.debug("No line to the shared learner: %s", error)
        return None
