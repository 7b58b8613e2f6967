"""One line of a batch: from JSON to a request that the app answers as it answers HTTP, and to its result."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from tenon.server.endpoint import INSIDE, Inside
from tenon.server.errors import ApiError, bad_request
from tenon.server.schema.batches import BatchError, Line, LineResponse, LineResult
from tenon.server.schema.decode import decode

if TYPE_CHECKING:
    from tenon.server.app import App

# What a batch may ask for; `App` answers those that it has a route for.
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
MAX_CUSTOM_ID = 512

# Not the request's fault, and over at some time: such a line is run again.
PASSING = frozenset(
    {
        "model_loading", "model_busy", "shutting_down", "engine_restarting", "engine_stalled", "overloaded",
        "rate_limit_exceeded",
    }
)  # fmt: skip
# May be the request's fault: such a line is run so many times. It may also be that of a line beside it.
ATTEMPTS = 5
DOUBTFUL = frozenset({"model_failed", "engine_dead", "engine_restarted", "unavailable"})


class WrongLine(Exception):
    """A line that is no request."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.error = BatchError(code=code, message=message, param=param)


def parse(data: bytes, endpoint: str | None) -> Line:
    """A line for `endpoint` (None: any). Raises WrongLine."""
    try:
        line = decode(data, Line)
    except ApiError as error:
        raise WrongLine(error.code or "invalid_value", error.message, error.param) from None
    if not 0 < len(line.custom_id) <= MAX_CUSTOM_ID:
        raise WrongLine("invalid_value", f"custom_id must have 1 to {MAX_CUSTOM_ID} characters", "custom_id")
    if line.method != "POST":
        raise WrongLine("invalid_value", f"method must be POST, not {line.method[:50]!r}", "method")
    allowed = ENDPOINTS if endpoint is None else (endpoint,)
    if line.url not in allowed:
        raise WrongLine("invalid_value", f"url must be {' or '.join(allowed)}, not {line.url[:100]!r}", "url")
    if not bytes(line.body).lstrip().startswith(b"{"):
        raise WrongLine("invalid_value", "body must be an object", "body")
    return line


@dataclass(slots=True)
class _Answer:
    status: int = 0
    parts: list[bytes] = field(default_factory=list)


class _Kinds(msgspec.Struct):
    """Fields of a body that ask for something else than one answer."""

    stream: Any = None
    background: Any = None


async def answer(app: App, line: Line, owner: str) -> tuple[LineResult, str | None]:
    """The result of a line that has been parsed, on behalf of `owner`, and the code of the error it may be.

    Waits for as long as it takes for what will pass, like a model that is being loaded.
    """
    attempts = 0
    while True:
        result = await _once(app, line, owner)
        code = error_code(result)
        if code in DOUBTFUL:
            attempts += 1
        elif code not in PASSING:
            return result, code
        if attempts >= ATTEMPTS:
            return result, code
        await asyncio.sleep(2.0**attempts)


async def _once(app: App, line: Line, owner: str) -> LineResult:
    request_id = f"batch_req_{secrets.token_hex(16)}"
    body = bytes(line.body)
    kinds = msgspec.json.decode(body, type=_Kinds)
    for name in ("stream", "background"):
        if getattr(kinds, name):
            error = bad_request(f"{name} has no place in a batch", name, "not_supported")
            return _result(line, request_id, error.status, error.body())
    answer = await ask(app, line.url, body, owner, request_id)
    return _result(line, request_id, answer.status, b"".join(answer.parts))


def _result(line: Line, request_id: str, status: int, body: bytes) -> LineResult:
    response = LineResponse(status_code=status, request_id=request_id, body=msgspec.Raw(body))
    return LineResult(id=request_id, custom_id=line.custom_id, response=response)


def error_code(result: LineResult) -> str | None:
    """The code of the error that a result is; None for one that is none."""
    if result.response is None or result.response.status_code < 400:
        return None
    return msgspec.json.decode(result.response.body)["error"].get("code") or "unknown"


async def ask(app: App, path: str, body: bytes, owner: str, request_id: str) -> _Answer:
    """The app's answer to a POST that nobody sent; being cancelled, it ends what it has begun."""
    headers = [(b"content-type", b"application/json"), (b"x-request-id", request_id.encode())]
    scope, receive = unsent(path, body, headers)
    scope[INSIDE] = Inside(owner)
    answer = _Answer()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
        else:
            answer.parts.append(message.get("body", b""))

    await app(scope, receive, send)
    return answer


def unsent(
    path: str, body: bytes, headers: list[tuple[bytes, bytes]]
) -> tuple[dict[str, Any], Callable[[], Awaitable[dict[str, Any]]]]:
    """A POST without a connection, as ASGI's scope and receive."""
    given = False

    async def receive() -> dict[str, Any]:
        nonlocal given
        if given:
            await asyncio.Event().wait()  # nobody leaves
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": None,
        "server": None,
    }
    return scope, receive
