"""The server's ear: every case of the raw corpus gets its one answer, and the next request succeeds."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from tenon.server.guard import HEAD, room_for
from tenon.server.limits import Limits
from tenon.server.settings import ServerSettings
from tests.server.fake_engine import FakeEngine
from tests.server.raw import BODY, CASES, GOOD, HOST, JSON, PATH, Case, send, statuses
from tests.server.serving import serving

# For clients that are slow. Others have as long as by default: the machine may be busy.
IMPATIENT = {"header_seconds": 2, "body_seconds": 2}
CANARY = Case("canary", (GOOD.replace(HOST, HOST + b"Connection: close\r\n"),), frozenset({200}))


@asynccontextmanager
async def listening(engine: FakeEngine, **limits: float):
    """The port of a server."""
    settings = ServerSettings(limits=Limits(keep_alive_seconds=0.7, **limits))
    async with serving(engine, settings) as (url, _):
        yield int(url.rpartition(":")[2])


async def fault(case: Case, port: int) -> str | None:
    """What is wrong with the answer to a case, or to the request after it if it is not a slow one."""
    received = await send(case, port)
    found = list(statuses(received))
    if len(found) > 1 or not case.statuses.issuperset(found) or bool(found) != bool(case.statuses):
        return f"{found} instead of {set(case.statuses)}: {received[:300]!r}"
    if received.endswith(b"<reset>"):
        return f"the answer would be lost: {received[:300]!r}"
    if found and found[0] >= 400:
        error = json.loads(received.rpartition(b"\r\n\r\n")[2])["error"]
        if not error["message"] or not error["code"]:
            return f"{error}"
    return None if case is CANARY or case.pause else await fault(CANARY, port)


@pytest.mark.parametrize("slow", [False, True])
async def test_the_raw_corpus(engine, slow):
    cases = [case for case in CASES if bool(case.pause) == slow]
    async with listening(engine, **(IMPATIENT if slow else {})) as port:
        faults = await asyncio.gather(*(fault(case, port) for case in cases))
    assert not {case.name: found for case, found in zip(cases, faults, strict=True) if found}
    assert engine.running == 0


@pytest.mark.parametrize("good", [True, False])
def test_a_head_is_read_in_time_that_grows_with_its_length(good):
    """Not with its square: a pattern that goes back over 64 KiB would take minutes."""
    end = b"\r\n\r\n" if good else b"\x01\r\n\r\n"
    for filler in (b" " * 65_000, b"a" * 65_000, b"a: b\r\n" * 10_000 + b"X:", b"\t \t" * 20_000):
        assert bool(HEAD.fullmatch(b"GET / HTTP/1.1\r\nX:" + filler + end)) == good


async def test_what_is_refused_is_logged_and_counted(engine, caplog):
    caplog.set_level("INFO", "tenon.server")
    limits = Limits(header_seconds=1, body_seconds=1, header_bytes=10_000, headers=4)
    cases = {
        "400 invalid_http": b"secret\r\n\r\n",
        "408 header_timeout": b"GET /secret HTTP/1.1\r\n",
        "408 body_timeout": GOOD[:-5],
        "414 target_too_long": b"GET /secret" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
        "431 header_too_large": b"GET / HTTP/1.1\r\nsecret: " + b"a" * 11_000,
        "431 too_many_headers": b"GET / HTTP/1.1\r\n" + b"secret: 1\r\n" * 5 + b"\r\n",
    }
    async with serving(engine, ServerSettings(limits=limits)) as (url, app):
        port = int(url.rpartition(":")[2])
        for name, sent in cases.items():
            caplog.clear()
            received = await send(Case(name, (sent, b""), frozenset(), 9.0), port)
            assert received.startswith(f"HTTP/1.1 {name.partition(' ')[0]} ".encode()), name
            (line,) = [record.getMessage() for record in caplog.records]
            assert name in line
            assert "secret" not in line
            assert "the client left" not in line
        metrics = app.metrics.render().decode()
    for name in cases:
        assert f'tenon:connection_refusals_total{{code="{name.partition(" ")[2]}"}} 1.0' in metrics


async def test_connections_are_kept_for_the_next_request(engine):
    async with listening(engine) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(GOOD)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
        assert await asyncio.wait_for(reader.read(), 10) == b""  # closed for being idle
        writer.close()


@pytest.mark.parametrize("path", [b"/nope", b"/health"])
async def test_an_answer_before_the_body_says_that_the_connection_ends(engine, path):
    """Or a client whose head and body are two packets sends its next request into a closed connection."""
    async with listening(engine) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GOOD.partition(BODY)[0].replace(b"/v1/completions", path))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 40")
        assert b"connection: close" in head.lower()
        writer.write(BODY)
        assert b"error" in await asyncio.wait_for(reader.read(), 10)
        writer.close()


async def test_an_idle_connection_makes_room_for_a_new_one(engine):
    async with listening(engine, connections=3, header_seconds=60) as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        assert await fault(CANARY, port) is None
        assert await asyncio.wait_for(idle[0][0].read(), 10) == b""
        for _, writer in idle:
            writer.close()


async def test_connections_that_come_at_once_take_the_place_of_as_many(engine):
    async with listening(engine, connections=3, header_seconds=60) as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        more = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(3)))
        for reader, _ in idle:
            assert await asyncio.wait_for(reader.read(), 10) == b""
        for _, writer in [*idle, *more]:
            writer.close()


async def test_too_many_busy_connections(engine):
    engine.delay = 60
    async with listening(engine, connections=2) as port:
        busy = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for _, writer in busy:
            writer.write(GOOD)
        while len(engine.requests) < 2:
            await asyncio.sleep(0.01)
        received = await send(CANARY, port)
        assert list(statuses(received)) == [503]
        assert b"too_many_connections" in received
        assert b"retry-after: 1" in received
        for _, writer in busy:
            writer.transport.abort()
        while engine.running:
            await asyncio.sleep(0.01)
        engine.delay = 0
        assert await fault(CANARY, port) is None


async def test_a_client_that_takes_nothing_is_let_go():
    """It sends, and never reads: what is kept for it is bounded, and its request ends."""
    engine = FakeEngine(lambda prompt, choice: "x" * 2000)
    engine.max_model_len = 1 << 20
    body = json.dumps({"prompt": "a", "max_tokens": 2000, "n": 64, "stream": True}).encode()
    request = PATH + HOST + JSON + b"Content-Length: %d\r\n\r\n" % len(body) + body
    async with listening(engine, send_seconds=0.7) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(request)
        while not engine.requests:
            await asyncio.sleep(0.01)
        while engine.running:
            await asyncio.sleep(0.05)
        assert engine.aborted
        writer.transport.abort()


async def test_a_client_that_leaves_with_another_request_waiting(engine):
    """Bytes behind a request do not hide that the client is gone."""
    engine.delay = 60
    async with listening(engine) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GOOD + GOOD * 20_000)
        while not engine.requests:
            await asyncio.sleep(0.01)
        writer.transport.abort()
        while engine.running:
            await asyncio.sleep(0.01)
        assert len(engine.aborted) == 1


async def test_a_slow_body_that_comes(engine):
    """More time than `body_seconds` in all, as long as it goes on."""
    size = 400_000
    head = PATH + HOST + JSON + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % (size + len(BODY))
    parts = [b" " * 100_000] * 4
    case = Case("slow", (head, *parts, BODY), frozenset({200}), pause=0.6)
    async with listening(engine, body_seconds=2) as port:
        assert await fault(case, port) is None


def test_room_for_connections():
    assert room_for(10) == 10
    assert 0 < room_for(1 << 40) < 1 << 40
