"""Secrets that this process holds: not to be printed, and not to be read off its command line."""

from __future__ import annotations

import ctypes
import hmac
import sys
from typing import NoReturn


class Secret:
    """A key or the like. It shows itself as ***, and nothing writes it into JSON, msgpack or a pickle: only
    `reveal` gives it away, where it is sent or hashed."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not stored")


def hide_in_command_line(*secrets: Secret) -> None:
    """Overwrite these words of the command line with asterisks, as /proc/PID/cmdline and `ps` show it (Linux;
    elsewhere nothing happens). They could be read until now, so this is no reason to put secrets there."""
    if sys.platform != "linux":
        return
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end of proc(5)
    except (OSError, IndexError, ValueError):
        return
    if not 0 < start < end:
        return
    words = ctypes.string_at(start, end - start)
    for secret in filter(None, secrets):
        word = secret.reveal().encode(errors="surrogateescape")
        at = words.find(word)
        while at >= 0:
            ctypes.memset(start + at, ord("*"), len(word))
            at = words.find(word, at + len(word))
