"""Errors on the wire: the OpenAI error object `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from tenon.errors import DeadlyRequest, EngineDead, InvalidRequest, RequestFailed, Unavailable
from tenon.server.schema.error import Problem, Refused


class ApiError(Exception):
    """An error with its HTTP status. `message` is shown to the client: never put internals in it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """The JSON error object."""
        problem = Problem(message=self.message, type=self.kind, param=self.param, code=self.code)
        return msgspec.json.encode(Refused(problem))


class Disconnected(Exception):
    """The client went away; there is nobody to answer."""


def bad_request(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    return ApiError(400, message, param=param, code=code)


def wrong_model(message: str) -> ApiError:
    """The model is not for what the request wants."""
    return bad_request(message, "model", "model_not_for_this")


def not_supported(field: str) -> ApiError:
    return ApiError(400, f"{field} is not supported yet", param=field, code="not_supported")


def loading() -> ApiError:
    return ApiError(
        503,
        "the model is still loading; try again in a moment",
        kind="server_error",
        code="model_loading",
        headers={"retry-after": "1"},
    )


def shutting_down() -> ApiError:
    return ApiError(
        503,
        "the server is shutting down",
        kind="server_error",
        code="shutting_down",
        headers={"retry-after": "1"},
    )


def not_unloaded(model: str, reason: str) -> ApiError:
    return ApiError(409, f"the model {model} is not unloaded: {reason}", code="model_in_use")


def engine_dead() -> ApiError:
    return ApiError(
        503,
        "the engine process has died and is not started again: restart the server",
        kind="server_error",
        code="engine_dead",
    )


def engine_restarted() -> ApiError:
    """A request was in flight when its engine died."""
    return ApiError(
        503,
        "the engine process died while it computed this request; it is being started again: send the "
        "request again",
        kind="server_error",
        code="engine_restarted",
        headers={"retry-after": "1"},
    )


def engine_restarting(seconds: float) -> ApiError:
    return ApiError(
        503,
        "the engine process has died and is being started again; try again in a moment",
        kind="server_error",
        code="engine_restarting",
        headers={"retry-after": str(max(1, math.ceil(seconds)))},
    )


def engine_stalled() -> ApiError:
    return ApiError(
        503,
        "the engine process makes no progress; it is restarted unless it goes on",
        kind="server_error",
        code="engine_stalled",
        headers={"retry-after": "5"},
    )


def as_api_error(error: BaseException, request_id: str) -> ApiError:
    """What the client is told about any exception: only user errors keep their own text."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InvalidRequest):
        return bad_request(str(error), error.param, error.code or "invalid_value")
    if isinstance(error, EngineDead):
        return engine_restarted()
    if isinstance(error, DeadlyRequest):
        return ApiError(
            500,
            str(error),
            kind="server_error",
            code="request_kills_engine",
            headers={"x-should-retry": "false"},
        )
    if isinstance(error, Unavailable):
        return ApiError(
            503, str(error), kind="server_error", code="unavailable", headers={"retry-after": "1"}
        )
    code = "request_failed" if isinstance(error, RequestFailed) else "internal_error"
    return ApiError(
        500,
        f"internal error while serving request {request_id}; the server's log says more",
        kind="server_error",
        code=code,
    )
