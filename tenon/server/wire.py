"""How a protocol puts its errors and streamed events on the wire."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from tenon.server.errors import ApiError
from tenon.server.schema.error import Refused

encode = msgspec.json.Encoder().encode


class Wire(Protocol):
    """One protocol. `done` ends a stream that went well; `problem` is the type of an error's JSON."""

    done: bytes

    @property
    def problem(self) -> type[msgspec.Struct]: ...

    def event(self, event: Any) -> bytes:
        """One server-sent event."""

    def error(self, error: ApiError, request_id: str) -> bytes:
        """The JSON body of an answer that is an error."""

    def broken(self, error: ApiError, request_id: str, last: Any) -> bytes:
        """The last event of a stream that fails after `last`."""


class OpenAI:
    """Chat and text completions: data only, `[DONE]` at the end."""

    done = b"data: [DONE]\n\n"
    problem = Refused

    def event(self, event: Any) -> bytes:
        return b"data: " + encode(event) + b"\n\n"

    def error(self, error: ApiError, request_id: str) -> bytes:
        return error.body()

    def broken(self, error: ApiError, request_id: str, last: Any) -> bytes:
        return b"data: " + error.body() + b"\n\n"


def named_event(event: msgspec.Struct) -> bytes:
    """A server-sent event that carries its type as its name, as the newer protocols have it."""
    name = str(event.__struct_config__.tag)
    return b"event: " + name.encode() + b"\ndata: " + encode(event) + b"\n\n"


OPENAI = OpenAI()
