"""A lock on a folder: one process at a time writes there."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK_FILE = ".lock"

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(folder: Path, check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the folder's lock until the end; the kernel releases it if the process is killed.

    The file stays, since one that is removed could be locked a second time by whoever has it open. Where the file system
    has no locks, one warning says so.

    Args:
        folder: Which folder.
        check: Raises what speaks against this folder; called with the lock held, and before anything is written into its file.

    Raises:
        ValueError: If another process has the lock, which is named; or if the file cannot be opened or is not a lock.
    """
    file = folder / LOCK_FILE
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ValueError(f"{file} cannot be opened ({error}). Name another folder with --out.") from error
    try:
        _lock(handle, folder)
        if not _is_lock(file):
            raise ValueError(f"{file} is not the lock of a run: it is left as it is. Name another folder with --out.")
        check()
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
    return all(path.name == LOCK_FILE and _is_lock(path) for path in folder.iterdir())


def remove_if_empty(folder: Path) -> None:
    """Takes back a folder in which nothing was written; to be called by who has the lock."""
    with contextlib.suppress(OSError):
        if is_empty(folder):
            (folder / LOCK_FILE).unlink(missing_ok=True)
            folder.rmdir()


def _is_lock(file: Path) -> bool:
    """Whether a file of the lock's name is one that `locked` could have left: empty, or with a holder."""
    try:
        content = file.read_bytes()
        return not file.is_symlink() and (not content or "pid" in json.loads(content))
    except (OSError, ValueError, TypeError):
        return False


def _lock(handle: int, folder: Path) -> None:
    if fcntl is None:
        logger.warning("%s cannot be locked on this system: see to it that no other run writes there.", folder)
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"{folder} is in use: {_holder(handle)}. Wait for it, stop it, or name another folder with --out."
        ) from None
    except OSError as error:  # some network file systems
        logger.warning("%s cannot be locked (%s): see to it that no other run writes there.", folder, error)


def _holder(handle: int) -> str:
    try:
        holder = json.loads(os.pread(handle, 4096, 0))
        process = f"process {holder['pid']} on {holder['host']} (since {holder['since']})"
        if holder["host"] == socket.gethostname():
            os.kill(holder["pid"], 0)  # sends nothing
    except ProcessLookupError:
        return f"{process} has ended, but a child process that it forked still holds {LOCK_FILE}"
    except PermissionError:  # it runs, under another user
        pass
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return "another process writes there"
    return f"{process} writes there"
