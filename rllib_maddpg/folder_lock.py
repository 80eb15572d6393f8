"""A lock on a folder: one process at a time writes there."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK_FILE = ".lock"

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder's lock until the end; the kernel releases it if the process is killed.

    The file stays, since one that is removed could be locked a second time by whoever has it open. Where the file system
    has no locks, one warning says so.

    Raises:
        ValueError: If another process has the lock; names it.
    """
    file = folder / LOCK_FILE
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(handle, folder)
        os.ftruncate(handle, 0)
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
        # Only for the message to the next one: without room for it, the lock still holds.
        with contextlib.suppress(OSError):
            os.write(handle, json.dumps(holder).encode())
        yield
    finally:
        os.close(handle)


def is_empty(folder: Path) -> bool:
    """Whether nothing but a lock is in it."""
    return all(path.name == LOCK_FILE for path in folder.iterdir())


def remove_if_empty(folder: Path) -> None:
    """Takes back a folder in which nothing was written; to be called by who has the lock."""
    with contextlib.suppress(OSError):
        if is_empty(folder):
            (folder / LOCK_FILE).unlink(missing_ok=True)
            folder.rmdir()


def _lock(handle: int, folder: Path) -> None:
    if fcntl is None:
        logger.warning("%s cannot be locked on this system: see to it that no other run writes there.", folder)
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"{folder} is in use: {_holder(handle)} writes there. Wait for it, stop it, or name another folder with --out."
        ) from None
    except OSError as error:  # some network file systems
        logger.warning("%s cannot be locked (%s): see to it that no other run writes there.", folder, error)


def _holder(handle: int) -> str:
    try:
        holder = json.loads(os.pread(handle, 4096, 0))
        return f"process {holder['pid']} on {holder['host']} (since {holder['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
