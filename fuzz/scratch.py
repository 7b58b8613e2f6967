"""A directory for what must be a file, in memory where the system has that; gone with the process."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path


@functools.cache
def _whole() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(
        prefix="tenon-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    )


def directory(name: str) -> Path:
    path = Path(_whole().name) / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def write(path: Path, data: bytes) -> Path:
    """A new file each time: one that is mapped somewhere must not shrink."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    return path
