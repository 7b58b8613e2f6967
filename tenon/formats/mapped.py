"""A read-only memory map of a model file, and what all readers of tensors share."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from tenon.core import ggml
from tenon.core.tensors import RawTensor
from tenon.errors import ModelFileError, UnsupportedModel


class MappedFile:
    """A file in memory, read-only. Raises ModelFileError when it cannot be opened or is empty."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ModelFileError(f"{path}: cannot read it: {error.strerror or error}") from None
        except ValueError:
            raise ModelFileError(f"{path}: the file is empty") from None
        self.size = len(self.buffer)
        self._bytes = np.frombuffer(self.buffer, np.uint8)

    def slice(self, start: int, length: int) -> np.ndarray:
        """Bytes [start, start + length), uint8, no copy. The caller has checked the bounds."""
        assert 0 <= start <= start + length <= self.size
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
        """The tensor itself. Raises UnsupportedModel when tenon computes nothing with its type."""
        if self.dtype not in ggml.BLOCKS or not self.shape:
            raise UnsupportedModel(
                f"{self.file.path}: tensor {self.name!r} has type {self.dtype} and shape {self.shape}; "
                f"tenon loads {', '.join(ggml.BLOCKS)}"
            )
        data = self.file.slice(self.start, self.length)
        return RawTensor(self.name, self.dtype, self.shape, data, mapped=True)

    def release(self) -> None:
        """Give the pages of this tensor back to the system."""
        self.file.release(self.start, self.length)


class TensorFile(Protocol):
    """What a reader gives: its path, for messages, and where each tensor is."""

    path: Path
    tensors: Mapping[str, TensorInfo]


def merge(path: Path, files: list[Mapping[str, TensorInfo]]) -> dict[str, TensorInfo]:
    """The tensors of all parts of a checkpoint. Raises ModelFileError when two parts hold the same name."""
    merged: dict[str, TensorInfo] = {}
    for tensors in files:
        if twice := merged.keys() & tensors.keys():
            raise ModelFileError(f"{path}: two files of this model hold the tensor {min(twice)!r}")
        merged.update(tensors)
    return merged
