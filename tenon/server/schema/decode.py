"""JSON bytes to a request struct; what is wrong becomes a 400 that names the field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from tenon.server.errors import ApiError, bad_request

T = TypeVar("T")

_PATH = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`\Z")
_FIELD = re.compile(r"(missing required|unknown) field `([^`]*)`")


def decode(body: bytes | bytearray, schema: type[T]) -> T:
    """Raises ApiError(400) with `param` set to the path of the offending field, like `messages[0].role`."""
    try:
        return msgspec.json.decode(body, type=schema)
    except msgspec.ValidationError as error:
        raise _invalid_field(str(error)) from None
    except UnicodeDecodeError:  # inside a string, msgspec lets Python's own error through
        raise bad_request("the body is not valid UTF-8", code="invalid_json") from None
    except msgspec.DecodeError as error:
        raise bad_request(f"the body is not valid JSON: {error}", code="invalid_json") from None
    except RecursionError:
        raise bad_request("the body is nested too deeply", code="invalid_json") from None


def convert(values: Mapping[str, Any], schema: type[T], *, where: str = "", texts: bool = False) -> T:
    """Part of a request, which is at `where` in it, to a struct. Raises ApiError(400) as `decode` does.

    `texts`: numbers and the like are written as texts, as a query string has them.
    """
    try:
        return msgspec.convert(values, schema, strict=not texts)
    except msgspec.ValidationError as error:
        raise _invalid_field(str(error), where) from None


def _invalid_field(message: str, where: str = "") -> ApiError:
    found = _PATH.search(message)
    path = ".".join(filter(None, (where, found.group(1) if found else "")))
    reason = message[: found.start()] if found else message
    reason = reason.replace("`", "'")
    if missing := _FIELD.search(message):
        what, name = missing.groups()
        path = f"{path}.{name}" if path else name
        if what == "unknown":
            return bad_request(f"{path} is not a field of this request", path, "unknown_field")
        return bad_request(f"{path} is required", path, "missing_field")
    return bad_request(f"{path}: {reason}" if path else reason, path or None, "invalid_value")
