"""`metadata` of a request: names and values that its client wants back."""

from __future__ import annotations

from collections.abc import Mapping

from tenon.server.errors import bad_request

MAX_PAIRS = 16
MAX_NAME, MAX_VALUE = 64, 512  # characters


def check_metadata(metadata: Mapping[str, str] | None) -> None:
    """Raises ApiError for more than OpenAI's limits allow."""
    pairs = (metadata or {}).items()
    if len(pairs) > MAX_PAIRS or any(len(k) > MAX_NAME or len(v) > MAX_VALUE for k, v in pairs):
        raise bad_request(
            f"metadata holds at most {MAX_PAIRS} pairs, of {MAX_NAME} and {MAX_VALUE} characters at most",
            "metadata",
        )
