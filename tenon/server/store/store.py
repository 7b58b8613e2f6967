"""The data directory of a server: `tenon.sqlite`, `files/`, and a lock, for one server at a time uses it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from tenon.errors import ConfigError
from tenon.server.store.batches import Batches
from tenon.server.store.database import Database
from tenon.server.store.files import Files

DATABASE = "tenon.sqlite"


class Store:
    """An open data directory."""

    def __init__(self, directory: Path) -> None:
        """Blocks. Raises ConfigError when the directory is in use by another server, or cannot be used."""
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            (directory / "files").mkdir(exist_ok=True, mode=0o700)
            self._lock = _lock(directory / "lock")
        except OSError as error:
            raise ConfigError(f"the data directory {directory} cannot be used: {error}") from None
        try:
            self._database = Database(directory / DATABASE)
        except BaseException:
            self._lock.close()
            raise
        self.files = Files(self._database, directory / "files")
        self.batches = Batches(self._database, self.files)

    def close(self) -> None:
        """Blocks until what has been begun is done."""
        self._database.close()
        self._lock.close()


def exists(directory: Path) -> bool:
    """Whether a server has kept something here."""
    return (directory / DATABASE).exists()


def _lock(path: Path) -> IO[str]:
    """Held until it is closed or the process ends, however it ends."""
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
