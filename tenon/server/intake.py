"""The bodies of all requests in flight, together: each is bounded by itself, and many clients send one."""

from __future__ import annotations

from tenon.server.admission import retry_headers
from tenon.server.errors import ApiError


class Intake:
    """`held` bytes of at most `most` are of requests that have not ended."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0

    def take(self, own: int, more: int) -> None:
        """`more` bytes for a request that has `own` of those that are held. One alone may have any number,
        as its own limits allow. Raises ApiError(429)."""
        if self.held + more > self.most and self.held > own:
            raise ApiError(
                429,
                f"the bodies of all requests in flight are over the limit of {self.most} bytes together; "
                "try again when others have ended",
                kind="rate_limit_error",
                code="overloaded",
                headers=retry_headers(1.0),
            )
        self.held += more

    def give(self, size: int) -> None:
        self.held -= size
