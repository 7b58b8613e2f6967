"""The Unix socket of the operator's routes (`tenon.server.admin`)."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from tenon.errors import ConfigError


@contextlib.contextmanager
def admin_socket(path: Path) -> Iterator[socket.socket]:
    """A listening Unix socket that only this user can open; gone in the end. Raises ConfigError."""
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)  # the socket must not be open to others for a moment, either
    try:
        sock.bind(str(path))
        sock.listen(16)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigError(f"cannot listen on {path}: {error.strerror or error}") from None
    finally:
        os.umask(before)
    mine = os.stat(path)
    try:
        yield sock
    finally:
        sock.close()
        with contextlib.suppress(OSError):
            if os.path.samestat(mine, os.stat(path)):  # not that of a server which came after us
                path.unlink()


def _remove_stale(path: Path) -> None:
    """What a killed server has left. Raises ConfigError where somebody listens, or it is another file."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigError(f"{path} is there already, and is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                path.unlink(missing_ok=True)
                return
            raise ConfigError(f"cannot use {path}: {error.strerror}") from None
    raise ConfigError(f"a server listens on {path} already")
