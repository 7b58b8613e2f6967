"""Pages of lists, as OpenAI's API has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, TypeVar

from tenon.server.errors import bad_request

T = TypeVar("T")


def check_limit(limit: int, most: int) -> None:
    """Raises ApiError(400)."""
    if not 1 <= limit <= most:
        raise bad_request(f"limit must be between 1 and {most}", "limit")


def page(
    kind: Callable[..., T],
    data: Sequence[Any],
    has_more: bool,
    id_of: Callable[[Any], str] = attrgetter("id"),
) -> T:
    """The answer: `data`, and the ids that clients ask for the next page with."""
    first, last = (id_of(data[0]), id_of(data[-1])) if data else (None, None)
    return kind(data=data, first_id=first, last_id=last, has_more=has_more)
