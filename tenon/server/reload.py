"""Files that are read again while the server runs: keys and certificates."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from tenon.errors import ConfigError
from tenon.util.signals import handle, unhandle
from tenon.util.tasks import end

log = logging.getLogger("tenon.server")

_POLL_SECONDS = 1.0

Stamp = tuple[tuple[int, ...], ...]


class Watched:
    """Files and what reads them. `read` raises ConfigError, or OSError, and then leaves in force what was
    read before: a server must not lose its keys or its certificate to a file that is being written."""

    def __init__(self, paths: Sequence[Path], read: Callable[[], None]) -> None:
        self._paths = paths
        self._read = read
        self._stamp = _stamp(paths)
        read()

    def refresh(self, *, force: bool = False) -> bool:
        """Read the files if they have changed. False when they cannot be used; the log says why."""
        stamp = _stamp(self._paths)
        if stamp == self._stamp and not force:
            return True
        self._stamp = stamp
        try:
            self._read()
        except (ConfigError, OSError) as error:
            log.error("not reloaded, what was read before stays in force: %s", error)
            return False
        return True


def _stamp(paths: Sequence[Path]) -> Stamp:
    """What changes when a file is written, replaced or removed."""
    return tuple(_state(path) for path in paths)


def _state(path: Path) -> tuple[int, ...]:
    try:
        state = os.stat(path)
    except OSError:
        return ()
    return state.st_mtime_ns, state.st_ctime_ns, state.st_size, state.st_ino


@contextlib.asynccontextmanager
async def reloading(watched: Sequence[Watched]) -> AsyncIterator[None]:
    """Within: read what changes within a second, and everything on SIGHUP. With nothing to watch, SIGHUP
    ends the process as ever."""
    if not watched:
        yield
        return
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(_poll(watched), name="tenon-reload")
    handle(loop, signal.SIGHUP, reload, watched)
    try:
        yield
    finally:
        unhandle(loop, signal.SIGHUP)
        await end(task)


def reload(watched: Sequence[Watched]) -> bool:
    """Read everything again, whether it has changed or not."""
    results = [each.refresh(force=True) for each in watched]
    return all(results)


async def _poll(watched: Sequence[Watched]) -> None:
    while True:
        await asyncio.sleep(_POLL_SECONDS)
        for each in watched:
            each.refresh()
