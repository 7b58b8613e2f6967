"""API keys: a file of names and hashes, and the keys that are good now.

A key that `make_key` draws has 256 bits of randomness, so its SHA-256 can be stored as it is: a slow, salted
hash makes guessing dear where there are few guesses to make, and here there are 2**256. (For the same reason
a password must not be used as a key.)
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from tenon.errors import ConfigError
from tenon.server.reload import Watched

log = logging.getLogger("tenon.server")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
_HASH = re.compile(r"sha256:([0-9a-f]{64})\Z")
MAX_FILE_BYTES = 1 << 20
HEAD = "# Keys of tenon, one per line: name, sha256:HASH of the key. Written by `tenon keys`.\n"


class Key(msgspec.Struct, frozen=True):
    """Who calls. `name` is what logs and metrics say; `id`, the hex SHA-256 of the key, tells callers apart
    for good: what they store is kept under it. Both are empty where no key is asked for."""

    name: str = ""
    id: str = ""

    def __repr__(self) -> str:
        return f"Key({self.name!r})"


NOBODY = Key()


def make_key() -> str:
    """A new key, which nobody can guess."""
    return "tenon-" + secrets.token_urlsafe(32)


def hashed(name: str, key: str) -> Key:
    return Key(name, hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest())


class Keys:
    """The keys that are good now: those given at start, and those of a file as it is at this moment.

    With a file keys are asked for even while it holds none. The file is looked at for every request (one
    `stat`), so a key that is taken out of it is refused from the next request on.
    """

    def __init__(self, given: Iterable[Key] = (), path: Path | None = None) -> None:
        self._given = tuple(given)
        self._known = self._given
        self.watched = Watched([path], lambda: self._read(path)) if path else None

    @classmethod
    def of(cls, *keys: str) -> Keys:
        """Keys that are given as they are, named key-1, key-2 ..."""
        return cls(hashed(f"key-{number}", key) for number, key in enumerate(keys, 1))

    @property
    def required(self) -> bool:
        return bool(self._given) or self.watched is not None

    def find(self, key: str) -> Key | None:
        """Compares with every key, each in constant time over hashes, so that timing tells nothing."""
        if self.watched is not None:
            self.watched.refresh()
        given = hashed("", key).id
        found = None
        for known in self._known:
            if hmac.compare_digest(given, known.id):
                found = known
        return found

    def with_id(self, id: str) -> Key:
        """The key that something stored belongs to; one that has been removed has no name."""
        return next((known for known in self._known if known.id == id), Key(id=id))

    def names(self) -> list[str]:
        return [known.name for known in self._known]

    def _read(self, path: Path) -> None:
        check_mode(path)
        found = read_keys(path)
        if twice := {key.id for key in found} & {key.id for key in self._given}:
            found = [key for key in found if key.id not in twice]  # the given ones come first
        before, now = {k.name for k in self._known[len(self._given) :]}, {k.name for k in found}
        self._known = (*self._given, *found)
        changes = {"added": sorted(now - before), "removed": sorted(before - now)}
        said = "".join(f"; {what}: {', '.join(names)}" for what, names in changes.items() if names)
        log.info("%s: %d keys%s", path, len(found), said)


# --- the file


def read_keys(path: Path) -> list[Key]:
    """Raises ConfigError naming the line that is wrong."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the API keys in {path}: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: a file of API keys has at most {MAX_FILE_BYTES} bytes")
    found: dict[str, Key] = {}
    for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key = _parse(line, f"{path}, line {number}")
        if key.name in found or any(key.id == other.id for other in found.values()):
            raise ConfigError(f"{path}, line {number}: there is a key {key.name} already")
        found[key.name] = key
    return list(found.values())


def _parse(line: str, where: str) -> Key:
    """One line. What it holds is not repeated in errors: it may be a key that was put there by mistake."""
    parts = line.split()
    if len(parts) != 2 or not _NAME.match(parts[0]) or not (match := _HASH.match(parts[1])):
        raise ConfigError(
            f"{where}: must be a name and sha256: with 64 hexadecimal digits, as `tenon keys add` writes it"
        )
    return Key(parts[0], match[1])


def check_mode(path: Path) -> None:
    """Raises ConfigError where others than the owner could add a key, or anybody read the hashes."""
    try:
        state = os.stat(path)
    except OSError as error:
        raise ConfigError(f"cannot read the API keys in {path}: {error.strerror}") from None
    if state.st_mode & 0o027:
        raise ConfigError(
            f"others than its owner may use {path} (mode {state.st_mode & 0o777:04o}): chmod 600 {path}"
        )
    if state.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"{path} belongs to another user (uid {state.st_uid}); a file of API keys must not")


def add_key(path: Path, name: str) -> str:
    """Store the hash of a new key; the key itself, which is kept nowhere."""
    if not _NAME.match(name):
        raise ConfigError(f"a key's name has 1 to 64 characters of A-Z a-z 0-9 . _ @ -, unlike {name!r}")
    with _editing(path):
        found = read_keys(path) if path.exists() else []
        if any(key.name == name for key in found):
            raise ConfigError(f"{path} has a key {name} already: remove it first, or choose another name")
        key = make_key()
        before = path.read_text() if path.exists() else HEAD
        newline = "" if before.endswith("\n") or not before else "\n"
        _replace(path, f"{before}{newline}{name} sha256:{hashed(name, key).id}\n")
    return key


def remove_key(path: Path, name: str) -> None:
    with _editing(path):
        if not any(key.name == name for key in read_keys(path)):
            raise ConfigError(f"{path} has no key {name}")
        lines = path.read_text().splitlines(keepends=True)
        _replace(path, "".join(line for line in lines if line.split()[:1] != [name]))


@contextlib.contextmanager
def _editing(path: Path) -> Iterator[None]:
    """One process at a time may change the file. It is the directory that is locked: the file is replaced."""
    if path.exists():
        check_mode(path)
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _replace(path: Path, content: str) -> None:
    """Write the file whole or not at all, readable by its owner only."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
