"""Signals that an event loop answers, where it can: one that is not the main thread's cannot, nor any on some
systems."""

from __future__ import annotations

import contextlib
from asyncio import AbstractEventLoop
from collections.abc import Callable
from signal import Signals
from typing import Any

_CANNOT = (NotImplementedError, ValueError, RuntimeError)


def handle(loop: AbstractEventLoop, number: Signals, callback: Callable[..., Any], *args: Any) -> None:
    with contextlib.suppress(*_CANNOT):
        loop.add_signal_handler(number, callback, *args)


def unhandle(loop: AbstractEventLoop, number: Signals) -> None:
    with contextlib.suppress(*_CANNOT):
        loop.remove_signal_handler(number)
