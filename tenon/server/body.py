"""What a method of a route reads of a request's body, each shape by one class; all of them bounded.

`Json(schema, handler)` decodes JSON and calls `handler(call, request)`, `Form(handler)` reads
multipart/form-data and calls `handler(call, form)`, `Bare(handler)` reads nothing and calls `handler(call)`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from tenon.server.call import Call
from tenon.server.errors import ApiError, bad_request
from tenon.server.limits import Limits
from tenon.server.schema.decode import decode
from tenon.server.schema.measure import TooDeep, TooMany, measure
from tenon.util.failpoint import failpoint

if TYPE_CHECKING:
    from starlette.datastructures import FormData

_JSON = re.compile(r"application/([a-z0-9.+-]*\+)?json\s*(;|\Z)", re.IGNORECASE)
_FORM = re.compile(r"multipart/form-data\s*(;|\Z)", re.IGNORECASE)

_CHARSET = re.compile(r";\s*charset\s*=(?!\s*\"?utf-?8\"?\s*(;|\Z))", re.IGNORECASE)
FIELD_BYTES = 16 * 1024  # of a form's field that is no file
INLINE_BYTES = 64 * 1024  # of JSON that is read on the event loop; more of it would hold others up

# A handler that has got its input: what supervision runs.
Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Bare:
    """No body, or one that says nothing."""

    handler: Callable[[Call], Awaitable[None]]

    async def __call__(self, call: Call) -> None:
        await call.supervise(self.handler(call))


@dataclass(frozen=True, slots=True)
class Json:
    """A JSON object of a schema."""

    schema: type[msgspec.Struct]
    handler: Callable[[Call, Any], Awaitable[None]]

    async def __call__(self, call: Call) -> None:
        _check_type(call, _JSON, "application/json")
        limits = call.app.settings.limits
        body = bytearray()
        async for part in call.body(limits.body_bytes):
            body += part
        call.log_text("asked", body)
        failpoint("parse", body)
        if len(body) <= INLINE_BYTES:
            request = read(body, self.schema, limits)
        else:
            request = await asyncio.to_thread(read, body, self.schema, limits)
        del body
        await call.supervise(self.handler(call, request))


@dataclass(frozen=True, slots=True)
class Form:
    """multipart/form-data. The handler gets starlette's FormData: text, and files that are on disk from
    1 MiB on and closed when it returns. `max_bytes` bounds the whole body (None: as JSON's)."""

    handler: Callable[[Call, FormData], Awaitable[None]]
    max_files: int = 1
    max_bytes: int | None = None

    async def __call__(self, call: Call) -> None:
        from starlette.formparsers import MultiPartException, MultiPartParser

        _check_type(call, _FORM, "multipart/form-data")
        if _CHARSET.search(call.headers["content-type"]):  # some of Python's decoders take a square of time
            raise bad_request("a form is read as UTF-8: leave the charset away", code="invalid_form")
        limits = call.app.settings.limits
        parts = call.body(self.max_bytes or limits.body_bytes)
        parser = MultiPartParser(
            call.headers,
            parts,
            max_files=self.max_files,
            max_fields=limits.form_fields,
            max_part_size=FIELD_BYTES,
        )
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise bad_request(
                f"the body is not valid multipart/form-data: {error.message}", code="invalid_form"
            ) from None
        try:
            await call.supervise(self.handler(call, form))
        finally:
            await form.close()


def read(body: bytes | bytearray, schema: type[msgspec.Struct], limits: Limits) -> Any:
    """JSON as a request that is within its limits. Raises ApiError."""
    try:
        measure(body, limits.json_depth, limits.json_values)
    except TooDeep:
        raise _over(f"is nested more than {limits.json_depth} levels deep") from None
    except TooMany:
        raise _over(f"holds more than {limits.json_values} values, or a number of too many digits") from None
    request = decode(body, schema)
    limits.check(request)
    return request


def _over(what: str) -> ApiError:
    return bad_request(f"the body {what}", code="limit_exceeded")


def _check_type(call: Call, pattern: re.Pattern[str], name: str) -> None:
    if not pattern.match(call.headers.get("content-type", "")):
        raise ApiError(415, f"the Content-Type header must be {name}", code="unsupported_media_type")
