"""Bytes on a socket as no client library sends them: the corpus of tests and of `bench/reliability/wire.py`.

Each case is what is sent and the statuses that may answer it. Sources: RFC 9112, sections 2 to 9; what is
known of request smuggling (Linhart et al. 2005, Kettle 2019); and slow clients (Slowloris, 2009).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

HOST = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
BODY = b'{"prompt": "hi", "max_tokens": 3}'
PATH = b"POST /v1/completions HTTP/1.1\r\n"
GOOD = PATH + HOST + JSON + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = PATH + HOST + JSON + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass(frozen=True)
class Case:
    """`statuses` of the one answer that may come; an empty set: the connection just ends."""

    name: str
    parts: tuple[bytes, ...]
    statuses: frozenset[int]
    pause: float = 0.0  # between parts


def _case(name: str, *parts: bytes, status: int | tuple[int, ...] = 400, pause: float = 0.0) -> Case:
    statuses = (status,) if isinstance(status, int) else status
    return Case(name, parts, frozenset(statuses), pause)


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%s\r\n%s\r\n" % (len(data), extension, data)


def framed(*fields: bytes, body: bytes = BODY, line: bytes = PATH) -> bytes:
    return line + HOST + JSON + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


LENGTH = b"Content-Length: %d" % len(BODY)
TE = b"Transfer-Encoding: chunked"
END = b"0\r\n\r\n"

CASES = [
    _case("good", GOOD, status=200),
    _case("good, chunked", CHUNKED + chunk(BODY) + END, status=200),
    _case("good, byte by byte", *(GOOD[i : i + 1] for i in range(len(GOOD))), status=200),
    _case("good, empty lines before it", b"\r\n\r\n" + GOOD, status=200),
    _case("good, an empty line after it", GOOD + b"\r\n", status=200),
    # --- what is no request line
    _case("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 50 + b"\r\n\r\n"),
    _case("TLS hello", bytes.fromhex("1603010200010001fc0303") + bytes(500)),
    _case("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    _case("HTTP/0.9", b"GET /\r\n\r\n"),
    _case("HTTP/1.2", b"GET / HTTP/1.2\r\n" + HOST + b"\r\n"),
    _case("two spaces", b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n"),
    _case("a tab", b"GET\t/\tHTTP/1.1\r\n" + HOST + b"\r\n"),
    _case("a space before the method", b" GET / HTTP/1.1\r\n" + HOST + b"\r\n"),
    _case("a space in the target", b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n"),
    _case("bytes in the target", b"GET /\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n"),
    _case("NUL in the target", b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n"),
    _case("NUL encoded in the target", b"GET /%00 HTTP/1.1\r\n" + HOST + b"\r\n", status=404),
    _case("climbing", b"GET /ui/../../../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n", status=404),
    _case("climbing, encoded", b"GET /ui/%2e%2e%2f%2e%2e%2fetc HTTP/1.1\r\n" + HOST + b"\r\n", status=404),
    _case("another's address", b"GET http://evil.example/ HTTP/1.1\r\n" + HOST + b"\r\n", status=(400, 404)),
    _case("CONNECT", b"CONNECT evil.example:443 HTTP/1.1\r\n" + HOST + b"\r\n", status=(400, 404)),
    _case("asterisk", b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", status=(400, 404, 405)),
    _case("an odd method", b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n", status=405),
    _case("a long method", b"A" * 5000 + b" / HTTP/1.1\r\n" + HOST + b"\r\n", status=(400, 405)),
    _case("a long target", b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", status=414),
    _case("a long query", b"GET /v1/models?" + b"a" * 10_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", status=414),
    # --- what is no header
    _case("no host", b"GET / HTTP/1.1\r\n\r\n"),
    _case("two hosts", b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n"),
    _case("bare line feeds", b"GET / HTTP/1.1\nHost: localhost\n\n"),
    _case("one bare line feed", b"GET / HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n"),
    _case("bare carriage return", b"GET / HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n"),
    _case("a folded line", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n"),
    _case("a line that begins with a space", b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n"),
    _case("a space before the colon", b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n"),
    _case("no colon", b"GET / HTTP/1.1\r\nHost: localhost\r\nnothing\r\n\r\n"),
    _case("no name", b"GET / HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n"),
    _case("NUL in a value", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n"),
    _case("DEL in a value", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x7fb\r\n\r\n"),
    _case("bytes in a name", b"GET / HTTP/1.1\r\nHost: localhost\r\nX\xff: a\r\n\r\n"),
    _case("latin-1 in a value", b"GET /live HTTP/1.1\r\nHost: localhost\r\nX: \xe9\r\n\r\n", status=200),
    _case("a big head at once", PATH + HOST + b"X: " + b"a" * 70_000 + b"\r\n\r\n", status=431),
    _case("a big head in parts", PATH + HOST, *[b"X: " + b"a" * 4000 + b"\r\n"] * 20, status=431),
    _case("a head without an end", PATH + HOST + b"X: ", *[b"a" * 65_536] * 64, status=431),
    _case("a name without an end", PATH + HOST, *[b"a" * 65_536] * 64, status=431),
    _case("a target without an end", b"GET /", *[b"a" * 65_536] * 64, status=431),
    _case("many headers", PATH + HOST + b"X: a\r\n" * 200 + b"\r\n", status=431),
    _case("many empty headers", PATH + HOST + b"a:\r\n" * 20_000 + b"\r\n", status=431),
    _case("spaces without an end", PATH + HOST + b"X:" + b" " * 60_000 + b"\x01\r\n\r\n"),
    _case("an upgrade", framed(b"Connection: Upgrade", b"Upgrade: websocket", LENGTH), status=200),
    _case("an upgrade to HTTP/2", framed(b"Connection: Upgrade", b"Upgrade: h2c", LENGTH), status=200),
    # --- two ways to read where a body ends
    _case("length and chunked", framed(LENGTH, TE, body=chunk(BODY) + END)),
    _case("chunked and length", framed(TE, b"Content-Length: 4", body=b"0\r\n\r\n" + SMUGGLED)),
    _case("two lengths that differ", framed(LENGTH, b"Content-Length: 5")),
    _case("two lengths that agree", framed(LENGTH, LENGTH)),
    _case("a list of lengths", framed(b"Content-Length: 5, 5")),
    _case("a signed length", framed(b"Content-Length: +%d" % len(BODY))),
    _case("a negative length", framed(b"Content-Length: -1")),
    _case("a hexadecimal length", framed(b"Content-Length: 0x10")),
    _case("a length with an underscore", framed(b"Content-Length: 3_3")),
    _case("a length in other digits", framed("Content-Length: ३३".encode())),
    _case("no length", framed(b"Content-Length:")),
    _case("a length that wraps", framed(b"Content-Length: 18446744073709551649")),
    _case("an enormous length", framed(b"Content-Length: 999999999999999999"), status=413),
    _case("a folded coding", framed(b"Transfer-Encoding:\r\n chunked", body=chunk(BODY) + END)),
    _case("a space before its colon", framed(b"Transfer-Encoding : chunked", body=chunk(BODY) + END)),
    _case("another coding", framed(b"Transfer-Encoding: gzip, chunked", body=chunk(BODY) + END)),
    _case("chunked twice", framed(TE, TE, body=chunk(BODY) + END)),
    _case("chunked, chunked", framed(b"Transfer-Encoding: chunked, chunked", body=chunk(BODY) + END)),
    _case("identity", framed(b"Transfer-Encoding: identity", LENGTH)),
    _case("nearly chunked", framed(b"Transfer-Encoding: xchunked", body=chunk(BODY) + END)),
    _case("chunked in quotes", framed(b'Transfer-Encoding: "chunked"', body=chunk(BODY) + END)),
    _case("chunked with a vertical tab", framed(b"Transfer-Encoding: \x0bchunked", body=chunk(BODY) + END)),
    _case("chunked in capitals", framed(b"Transfer-Encoding: CHUNKED", body=chunk(BODY) + END), status=200),
    _case("chunked in HTTP/1.0", framed(TE, body=chunk(BODY) + END, line=PATH.replace(b"1.1", b"1.0"))),
    # --- what is no chunk
    _case("a chunk of no size", CHUNKED + b"\r\n" + END),
    _case("a negative chunk", CHUNKED + b"-1\r\na\r\n" + END),
    _case("a chunk of an enormous size", CHUNKED + b"f" * 40 + b"\r\na\r\n" + END),
    _case("a chunk size with 0x", CHUNKED + b"0x5\r\naaaaa\r\n" + END),
    _case("a chunk longer than it says", CHUNKED + b"1\r\nab\r\n" + END),
    _case("a bare line feed after a chunk size", CHUNKED + b"%x\n" % len(BODY) + BODY + b"\r\n" + END),
    _case("chunk extensions", CHUNKED + chunk(BODY, b";a=b") + END, status=200),
    _case("an extension without an end", CHUNKED + b"5;", *[b"a" * 65_536] * 32),
    _case("a chunk size without an end", CHUNKED, *[b"0" * 65_536] * 32),
    _case("trailers", CHUNKED + chunk(BODY) + b"0\r\nX: y\r\nAuthorization: Bearer x\r\n\r\n", status=200),
    _case("trailers without an end", CHUNKED + chunk(BODY) + b"0\r\n", *[b"X: " + b"a" * 8000] * 200),
    _case("tiny chunks", CHUNKED, *[chunk(b" ") * 10_000] * 40, status=(400, 408)),
    _case("chunks without an end", CHUNKED, *[chunk(b" " * 65_536)] * 200, status=413),
    # --- a second request with the first
    _case("a second request", GOOD + GOOD, status=200),
    _case("a smuggled request", GOOD + SMUGGLED, status=200),
    _case("a smuggled request after chunks", CHUNKED + chunk(BODY) + END + SMUGGLED, status=200),
    _case("a thousand requests", GOOD * 1000, status=200),
    _case("garbage after a request", GOOD + b"\0" * 100_000, status=200),
    # --- what is slow
    _case("a head that stops", PATH + HOST, b"", status=408, pause=9),
    _case("a head byte by byte", *(GOOD[i : i + 1] for i in range(60)), status=408, pause=0.1),
    _case("nothing", b"", status=(), pause=9),
    _case("only empty lines", *[b"\r\n"] * 60, status=(), pause=0.1),
    _case("a body that stops", GOOD[:-5], b"", status=408, pause=9),
    _case("a chunk that stops", CHUNKED + b"40\r\nabc", b"", status=408, pause=9),
    _case("a body byte by byte", CHUNKED, *[chunk(b" ")] * 60, status=408, pause=0.1),
    _case("a body that never comes", framed(b"Expect: 100-continue", LENGTH)[:-40], b"", status=408, pause=9),
    # --- too much
    _case("a long body", framed(b"Content-Length: 20000000", body=b""), *[b" " * 65_536] * 300, status=413),
    _case("a long body of a wrong path", b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 20000000\r\n\r\n",
          *[b" " * 65_536] * 300, status=404),
]  # fmt: skip


async def send(case: Case, port: int) -> bytes:
    """What comes back until the server closes the connection, which this side never does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = bytearray()

    async def receive() -> None:
        try:
            while data := await reader.read(65_536):
                received.extend(data)
        except ConnectionError:
            received.extend(b"<reset>")

    receiving = asyncio.ensure_future(receive())
    try:
        for part in case.parts:
            if receiving.done():
                break
            writer.write(part)
            await writer.drain()
            if case.pause:
                await asyncio.wait({receiving}, timeout=case.pause)
    except ConnectionError:
        pass
    try:
        await asyncio.wait_for(asyncio.shield(receiving), 30)
    finally:
        receiving.cancel()
        writer.transport.abort()
    return bytes(received)


def statuses(received: bytes) -> Iterator[int]:
    """Of every response that begins in the bytes."""
    for part in received.split(b"HTTP/1.1 ")[1:]:
        if not part.startswith(b"100 "):
            yield int(part[:3])
