"""What a handler answers, said where the handler is: the source of /openapi.json and of the routes' docs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

JSON = "application/json"
EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """`body` is the type of a 200's JSON, or None where `content_types` are other than JSON. `events` is
    the type of a stream's events, where the request may ask for one. `query` and `form` are structs of the
    query string and of a multipart body. `statuses` are those of its own, besides what every route of its
    kind may answer (tenon/server/openapi.py)."""

    body: Any = None
    content_types: tuple[str, ...] = (JSON,)
    events: Any = None
    query: type | None = None
    form: type | None = None
    statuses: dict[int, str] = field(default_factory=dict)


def answers(body: Any = None, *, statuses: dict[int, str] | None = None, **rest: Any) -> Callable[[F], F]:
    """Declare a handler's contract; the fields are those of `Contract`."""
    contract = Contract(body=body, statuses=statuses or {}, **rest)

    def declare(handler: F) -> F:
        handler.contract = contract  # type: ignore[attr-defined]
        return handler

    return declare


def contract_of(handler: Any) -> Contract:
    """Raises TypeError for a handler that declares none: nothing is served that is not described."""
    found = getattr(handler, "contract", None)
    if found is None:
        raise TypeError(
            f"{handler.__module__}.{handler.__name__} does not say what it answers: "
            "decorate it with tenon.server.contract.answers"
        )
    assert isinstance(found, Contract)
    return found
