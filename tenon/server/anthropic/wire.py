"""Errors and events as Anthropic's clients read them."""

from __future__ import annotations

from typing import Any

from tenon.server.errors import ApiError
from tenon.server.schema.anthropic import Error, MessageStop, Problem
from tenon.server.wire import encode, named_event

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class Anthropic:
    done = b""  # the event message_stop says it
    problem = Error

    def event(self, event: Any) -> bytes:
        return named_event(event)

    def error(self, error: ApiError, request_id: str) -> bytes:
        return encode(_error(error, request_id))

    def broken(self, error: ApiError, request_id: str, last: Any) -> bytes:
        if isinstance(last, MessageStop):  # the client has it all
            return b""
        return named_event(_error(error, request_id))


def _error(error: ApiError, request_id: str) -> Error:
    """`param` is in the message already, by tenon's habit; Anthropic's object has no place for it."""
    kind = _KINDS.get(error.status, "invalid_request_error")
    return Error(Problem(kind, error.message), request_id)


ANTHROPIC = Anthropic()
