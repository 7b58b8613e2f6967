"""The native thread pool's size and place."""

from __future__ import annotations

from tenon.errors import ConfigError
from tenon.kernels.cpu import _native


def set_num_threads(count: int) -> None:
    try:
        _native.set_num_threads(count)
    except ValueError as error:
        raise ConfigError(f"num_threads: {error}") from None


def pin_caller() -> None:
    _native.pin_caller()
