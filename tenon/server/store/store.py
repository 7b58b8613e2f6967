"""The data directory of a server: `tenon.sqlite`, `files/`, and a lock, for one server at a time uses it."""

from __future__ import annotations

from pathlib import Path

from tenon.errors import ConfigError
from tenon.server.store.batches import Batches
from tenon.server.store.database import Database
from tenon.server.store.files import Files
from tenon.server.store.lock import lock

DATABASE = "tenon.sqlite"


class Store:
    """An open data directory."""

    def __init__(self, directory: Path) -> None:
        """Blocks. Raises ConfigError when the directory is in use by another server, or cannot be used."""
        self._lock = lock(directory)
        try:
            (directory / "files").mkdir(exist_ok=True, mode=0o700)
            self._database = Database(directory / DATABASE)
        except OSError as error:
            self._lock.close()
            raise ConfigError(f"the data directory {directory} cannot be used: {error}") from None
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
