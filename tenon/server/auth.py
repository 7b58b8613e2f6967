"""Who calls. Every route asks for a key unless it is tagged public (`endpoint.Endpoint.public`)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from tenon.server.errors import ApiError, bad_request
from tenon.server.keys import NOBODY, Key, Keys

_SALT = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")


def authenticate(headers: Mapping[str, str], keys: Keys) -> Key:
    """The key of this caller (NOBODY when keys are not in use). Raises 401.

    The key comes as OpenAI's or as Anthropic's clients send it.
    """
    if not keys.required:
        return NOBODY
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        given = "" if scheme else headers.get("x-api-key", "")
    found = keys.find(given.strip())
    if not given.strip() or found is None:
        raise ApiError(
            401,
            "missing or wrong API key: send it as `Authorization: Bearer KEY` or `X-Api-Key: KEY`",
            kind="authentication_error",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )
    return found


def cache_salt(caller: str, requested: str | None) -> str:
    """Salt of the prefix cache: callers with different keys, or salts of their own, share no blocks."""
    if requested is not None and not _SALT.match(requested):
        raise bad_request("cache_salt must be 1 to 128 characters of A-Z a-z 0-9 _ -", "cache_salt")
    if not caller and requested is None:
        return ""
    return hashlib.sha256(f"{caller}/{requested or ''}".encode()).hexdigest()
