"""The small files of a model: configurations, indexes, templates. Each has a greatest size."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from tenon.errors import ModelFileError

MAX_JSON_BYTES = 16 << 20

T = TypeVar("T")


def read(path: Path, limit: int = MAX_JSON_BYTES) -> bytes | None:
    """What a file holds; None if there is no such file. Raises ModelFileError for one that is larger than
    `limit` or cannot be read."""
    try:
        with open_regular(path) as file:
            data = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise cannot_read(path, error) from None
    if len(data) > limit:
        raise ModelFileError(f"{path}: larger than {limit} bytes, which no such file needs to be")
    return data


def open_regular(path: Path) -> BinaryIO:
    """A regular file, opened for reading. Raises ModelFileError for anything else, like a pipe, whose end
    would never come; OSError or ValueError for what cannot be opened."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ModelFileError(f"{path}: not a regular file")
    return open(handle, "rb")


def read_text(path: Path, limit: int) -> str | None:
    """The same, as text. Raises ModelFileError also for what is not UTF-8."""
    data = read(path, limit)
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{path}: not UTF-8: {error}") from None


def read_json(path: Path, kind: type[T], limit: int = MAX_JSON_BYTES) -> T | None:
    """The JSON in a file, checked to be of a type; None if there is no such file."""
    data = read(path, limit)
    return None if data is None else parse_json(path, data, kind)


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is no such file."""
    return read_json(path, dict[str, Any])


def parse_json(path: Path, data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelFileError(f"{path}: malformed: {error}") from None


def cannot_read(path: Path, error: OSError | ValueError) -> ModelFileError:
    reason = error.strerror if isinstance(error, OSError) else error
    return ModelFileError(f"{path}: cannot read it: {reason or error}")
