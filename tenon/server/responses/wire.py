"""Errors and events as clients of the Responses API read them."""

from __future__ import annotations

from typing import Any

from tenon.server.errors import ApiError
from tenon.server.schema.responses import LAST, Error
from tenon.server.wire import OpenAI, named_event


class Responses(OpenAI):
    done = b""  # response.completed and its like say it

    def event(self, event: Any) -> bytes:
        return named_event(event)

    def broken(self, error: ApiError, request_id: str, last: Any) -> bytes:
        if isinstance(last, LAST):  # it has said so itself
            return b""
        number = 0 if last is None else last.sequence_number + 1
        return named_event(
            Error(sequence_number=number, code=error.code, message=error.message, param=error.param)
        )


RESPONSES = Responses()
