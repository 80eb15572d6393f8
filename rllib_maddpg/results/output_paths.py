"""Checks of where results are to go, made before any work is done for them."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from pathlib import Path

# A file system, a quota and a limit of the process on the size of a file (`ulimit -f`) end a file alike.
_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full for this user (quota)",
    errno.EFBIG: "the file would be too large",
}


def check_local(flag: str, path: str) -> None:
    """Raises a ValueError if the path is a URI (`s3://...`) or cannot be a path of this machine."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        raise ValueError(
            f"{flag} {path} is a URI, but this command writes to a folder of this machine. Name a local folder and copy it "
            "afterwards; Tune itself takes URIs as its `storage_path` (docs/clusters.md)."
        )
    if "\0" in path or not path:
        raise ValueError(f"{flag} {path!r} is no path.")


def make_folder(flag: str, path: str | Path) -> Path:
    """Makes the folder, if it is not there, and makes sure that files can be written into it.

    Raises:
        ValueError: If the path is a URI, a file or inside a file, or the folder cannot be written to.
    """
    check_local(flag, str(path))
    folder = Path(path)
    try:
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{flag} {path} is a file. Name a folder.")
        folder.mkdir(parents=True, exist_ok=True)
        _check_writable(folder)
    except OSError as error:
        raise _refusal(flag, path, error) from error
    return folder


def check_file(flag: str, path: str | Path) -> None:
    """Makes the file's folder, if it is not there, and makes sure that the file can be written.

    Raises:
        ValueError: If the path is a URI or a folder, or the file cannot be written.
    """
    check_local(flag, str(path))
    file = Path(path)
    try:
        if file.is_dir():
            raise ValueError(f"{flag} {path} is a folder. Name a file.")
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():
            file.open("ab").close()
        else:
            _check_writable(file.parent)
    except OSError as error:
        raise _refusal(flag, path, error) from error


def why_not_written(error: BaseException) -> str:
    """What kept a file from being written, with the word that says it where a disk is full."""
    reason = _FULL.get(getattr(error, "errno", None) or 0)
    if reason is None:
        # torch and pyarrow give errors of their own, without a number.
        text = str(error)
        full = os.strerror(errno.ENOSPC) in text or "No space left" in text
        reason = _FULL[errno.ENOSPC] if full else None
    return f"{reason} ({error})" if reason else str(error)


def _check_writable(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0" * 4096)
        file.flush()


def _refusal(flag: str, path: str | Path, error: OSError) -> ValueError:
    return ValueError(f"{flag} {path} cannot be written to: {why_not_written(error)}. Name a place that can be.")
