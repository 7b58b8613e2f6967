"""Bodies of the operator's routes."""

from __future__ import annotations

from typing import Literal

import msgspec

from tenon.core.messages import EngineStats


class ModelReport(msgspec.Struct, kw_only=True):
    """A model: how it stands, and what its engine counts (None while there is none).

    `engine_pid` is its process."""

    name: str
    state: str
    stats: EngineStats | None
    restarts: int
    heartbeat_age: float
    engine_pid: int | None


class Report(msgspec.Struct, kw_only=True):
    """The server as a whole. `keys` are names."""

    stopping: bool
    requests: int
    keys: list[str]
    models: list[ModelReport]


class LiveRequest(msgspec.Struct, kw_only=True):
    """A request that is being answered."""

    id: str
    key: str
    method: str
    path: str
    seconds: float
    prompt_tokens: int
    completion_tokens: int


class LiveRequests(msgspec.Struct, kw_only=True):
    data: list[LiveRequest]


class Done(msgspec.Struct, kw_only=True):
    """How many requests, models or files it was done to."""

    done: int


class LogLevel(msgspec.Struct, kw_only=True):
    level: Literal["debug", "info", "warning", "error"]
