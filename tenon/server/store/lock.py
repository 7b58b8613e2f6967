"""One server at a time uses a data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from tenon.errors import ConfigError


def lock(directory: Path) -> IO[str]:
    """The lock of a directory, which is made. Held until it is closed or the process ends, however it ends.

    Raises ConfigError when another server holds it, or the directory cannot be used.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _taken(directory / "lock")
    except OSError as error:
        raise ConfigError(f"the data directory {directory} cannot be used: {error}") from None


def _taken(path: Path) -> IO[str]:
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise ConfigError(
            f"the data directory {path.parent} is in use by another server (process {owner}): "
            "give this one another --data-dir"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
