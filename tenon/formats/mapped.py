"""A read-only memory map of a model file, and what all readers of tensors share."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from tenon.core import ggml
from tenon.core.tensors import RawTensor
from tenon.errors import ModelFileError, UnsupportedModel
from tenon.formats.small import cannot_read, open_regular


class MappedFile:
    """A file in memory, read-only. Raises ModelFileError when it cannot be opened, is empty or no file.

    The pages of a file that shrinks while it is mapped are gone, and reading them would end the process: so
    its size is looked up again before a tensor is read. Whoever replaces a model's file while it is loaded
    must write a new one and rename it, as every downloader does; see docs/model-files.md.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open_regular(path) as file:
                size = os.fstat(file.fileno()).st_size
                if not size:
                    raise ModelFileError(f"{path}: the file is empty")
                self.buffer = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise cannot_read(path, error) from None
        self.size = len(self.buffer)
        self._bytes = np.frombuffer(self.buffer, np.uint8)

    def slice(self, start: int, length: int) -> np.ndarray:
        """Bytes [start, start + length), uint8, no copy. Callers check the bounds first, and say more.
        Raises ModelFileError for these, and for a file that has become shorter since."""
        if not 0 <= start <= start + length <= self.size:
            raise ModelFileError(f"{self.path}: {length} bytes at {start} are not within the file")
        if self.buffer.size() < self.size:
            raise ModelFileError(
                f"{self.path}: it had {self.size} bytes when it was opened and has {self.buffer.size()} now: "
                "replace a model's file by renaming a new one, never in place"
            )
        return self._bytes[start : start + length]

    def release(self, start: int, length: int) -> None:
        """Let the kernel drop these pages: packed weights must not count twice in the process's memory."""
        if not hasattr(self.buffer, "madvise") or not length:  # pragma: no cover - not on this platform
            return
        first = start - start % mmap.PAGESIZE
        self.buffer.madvise(mmap.MADV_DONTNEED, first, start + length - first)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies. `shape` is in torch order; `start` and `length` are bytes in `file`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: MappedFile
    start: int
    length: int

    def raw(self) -> RawTensor:
        """The tensor itself; a number without axes is a vector of one. Raises UnsupportedModel when tenon
        computes nothing with its type."""
        if self.dtype not in ggml.BLOCKS:
            raise UnsupportedModel(
                f"{self.file.path}: tensor {self.name!r} has type {self.dtype} and shape {self.shape}; "
                f"tenon loads {', '.join(ggml.BLOCKS)}"
            )
        data = self.file.slice(self.start, self.length)
        return RawTensor(self.name, self.dtype, self.shape or (1,), data, mapped=True)

    def release(self) -> None:
        """Give the pages of this tensor back to the system."""
        self.file.release(self.start, self.length)


class StoredTensor(Protocol):
    """A tensor of a model file, as `TensorInfo` has it."""

    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def length(self) -> int: ...

    def raw(self) -> RawTensor: ...

    def release(self) -> None: ...


class TensorFile(Protocol):
    """What a reader gives: its path, for messages, and where each tensor is."""

    path: Path

    @property
    def tensors(self) -> Mapping[str, StoredTensor]: ...


def merge(path: Path, files: list[Mapping[str, TensorInfo]]) -> dict[str, TensorInfo]:
    """The tensors of all parts of a checkpoint. Raises ModelFileError when two parts hold the same name."""
    merged: dict[str, TensorInfo] = {}
    for tensors in files:
        if twice := merged.keys() & tensors.keys():
            raise ModelFileError(f"{path}: two files of this model hold the tensor {min(twice)!r}")
        merged.update(tensors)
    return merged


def overlapping(pieces: Iterable[tuple[int, int, str]]) -> str | None:
    """Which two of these (start, length, name) share bytes; None if none do."""
    end, before = 0, ""
    for start, length, name in sorted(pieces):
        if start < end:
            return f"{name!r} begins at {start}, inside {before!r}"
        end, before = start + length, name
    return None
