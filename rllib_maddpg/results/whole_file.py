"""Files that are replaced as a whole, so that nobody ever reads half of one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def replace_text(file: Path, text: str) -> None:
    """Writes the file beside its place, and then puts it there.

    Raises:
        OSError: If it cannot be written; the old file stays.
    """
    part = file.with_name(f".{file.name}")
    try:
        with part.open("w", newline="") as f:
            f.write(text)
        os.replace(part, file)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def replace_json(file: Path, data: dict[str, Any]) -> None:
    """`replace_text` for JSON that people read, too."""
    replace_text(file, json.dumps(data, indent=2) + "\n")
