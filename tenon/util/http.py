"""A small HTTP/1.1 client: keep-alive connections, streamed bodies, nothing else.

For the load generator and `tenon chat --url`. A general client library costs more processor time per streamed
token than the server being measured spends; on the machines tenon is for, both share the same few cores.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from tenon.errors import ConfigError
from tenon.util.secret import Secret

WANTS_KEY = "the server wants a key: --api-key or TENON_API_KEY"
MAX_LINE = 1 << 20  # bytes of one server-sent event


@dataclass(frozen=True, slots=True)
class Target:
    """Where a server listens: `http://host:port/prefix`."""

    host: str
    port: int
    tls: bool
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Target:
        """Raises ConfigError for anything but an http(s) URL. A trailing `/v1` is dropped: paths carry it."""
        if "//" not in url:
            url = f"http://{url}"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"{url!r} is not a URL: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is not an http:// or https:// URL")
        tls = parts.scheme == "https"
        prefix = parts.path.rstrip("/").removesuffix("/v1")
        return cls(parts.hostname, port or (443 if tls else 80), tls, prefix)


class HttpError(Exception):
    """The server answered with a status other than 200, or broke the protocol.

    `reason` says in two or three words what happened, `message` in the server's own words; `code` is that of
    an OpenAI error object.
    """

    def __init__(
        self, message: str, reason: str = "broken answer", status: int | None = None, code: str | None = None
    ) -> None:
        super().__init__(message if status is None else f"status {status}: {message}")
        self.message = message
        self.reason = reason
        self.status = status
        self.code = code


class Connection:
    """One connection; requests on it run one after the other."""

    def __init__(self, target: Target, api_key: Secret | None = None) -> None:
        self._target = target
        if api_key and not api_key.reveal().isprintable():
            raise ConfigError("the API key holds characters that no header can")
        self._key = api_key
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The whole body of a response. Raises HttpError and OSError."""
        return b"".join([part async for part in self.stream(method, path, body)])

    async def stream(self, method: str, path: str, body: bytes = b"") -> AsyncGenerator[bytes, None]:
        """The body of a response as its parts arrive. A connection left early is closed."""
        finished = False
        try:
            reader = await self._send(method, path, body)
            status, headers = await _head(reader)
            parts = _body(reader, headers)
            if status != 200:
                raise _refused(status, b"".join([part async for part in parts]))
            async for part in parts:
                yield part
            finished = headers.get("connection", "").lower() != "close"
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise HttpError(f"the response is broken or ended early: {error}") from None
        finally:
            if not finished:
                self.close()

    def _credentials(self) -> str:
        return f"Authorization: Bearer {self._key.reveal()}\r\n" if self._key else ""

    async def _send(self, method: str, path: str, body: bytes) -> asyncio.StreamReader:
        target = self._target
        head = (
            f"{method} {target.prefix}{path} HTTP/1.1\r\nHost: {target.host}:{target.port}\r\n"
            f"{self._credentials()}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        if self._writer is not None and (
            self._writer.is_closing() or (self._reader and self._reader.at_eof())
        ):
            self.close()
        if self._writer is None or self._reader is None:
            self._reader, self._writer = await asyncio.open_connection(
                target.host,
                target.port,
                ssl=ssl.create_default_context() if target.tls else None,
                limit=MAX_LINE,
            )
        self._writer.write(head.encode() + body)
        await self._writer.drain()
        return self._reader

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


def _refused(status: int, body: bytes) -> HttpError:
    """The error of an answer with this status; of an OpenAI error object, its message."""
    try:
        error = msgspec.json.decode(body)["error"]
        code = error.get("code")
    except (msgspec.DecodeError, LookupError, TypeError, AttributeError):
        error, code = body[:500].decode(errors="replace"), None
    return HttpError(error_message(error), f"status {status}", status, code)


def error_message(error: Any) -> str:
    """The message of an OpenAI error object, or whatever stands in its place, as text."""
    return str(error.get("message", error) if isinstance(error, dict) else error)[:500]


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and lower-cased headers of a response."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    parts = lines[0].split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
        raise HttpError(f"not an HTTP/1 response: {lines[0][:80]!r}")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(parts[1]), headers


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncGenerator[bytes, None]:
    if "chunked" in headers.get("transfer-encoding", ""):
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
    elif "content-length" in headers:
        yield await reader.readexactly(int(headers["content-length"]))
    else:
        while part := await reader.read(65536):
            yield part


async def events(parts: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The `data:` payloads of a stream of server-sent events, without `[DONE]`. Close it if left early."""
    rest = b""
    async with aclosing(parts):
        async for part in parts:
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                if line.startswith(b"data:"):
                    data = line[5:].strip()
                    if data != b"[DONE]":
                        yield data


async def first_model(target: Target, api_key: Secret | None) -> str:
    """Name of the model a server serves. Raises ConfigError when there is no server."""
    connection = Connection(target, api_key)
    where = f"{target.host}:{target.port}"
    try:
        body = await connection.request("GET", "/v1/models")
        return str(msgspec.json.decode(body)["data"][0]["id"])
    except OSError as error:
        raise ConfigError(f"no server answers at {where}") from error
    except HttpError as error:
        raise ConfigError(WANTS_KEY if error.status == 401 else f"{where} lists no model: {error}") from None
    except (msgspec.DecodeError, LookupError, TypeError) as error:
        raise ConfigError(f"{where} lists no model: {error}") from None
    finally:
        connection.close()
