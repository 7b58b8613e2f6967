import asyncio

import pytest

from tenon.errors import ConfigError
from tenon.util.http import Connection, HttpError, Target, events, first_model
from tenon.util.secret import Secret
from tests.openai_server import FakeServer, running


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("127.0.0.1:8000", Target("127.0.0.1", 8000, False, "")),
        ("http://host", Target("host", 80, False, "")),
        ("https://host/v1/", Target("host", 443, True, "")),
        ("http://host:9/proxy/v1", Target("host", 9, False, "/proxy")),
        ("http://[::1]:8000", Target("::1", 8000, False, "")),
    ],
)
def test_target_is_read_from_a_url(url, expected):
    assert Target.parse(url) == expected


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://host:port", "http://host:99999"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ConfigError, match="URL"):
        Target.parse(url)


def test_requests_share_a_connection():
    async def talk(server):
        connection = Connection(Target.parse(server.url))
        for _ in range(3):
            assert b"fake" in await connection.request("GET", "/v1/models")
        connection.close()

    with running() as server:
        asyncio.run(talk(server))
        assert server.connections == 1


def test_a_stream_left_early_closes_its_connection():
    async def talk(server):
        connection = Connection(Target.parse(server.url))
        body = b'{"prompt": [1], "max_tokens": 50}'
        stream = connection.stream("POST", "/v1/completions", body)
        async for _ in stream:
            break
        await stream.aclose()
        assert b"fake" in await connection.request("GET", "/v1/models")

    with running(FakeServer(gap=0.001)) as server:
        asyncio.run(talk(server))
        assert server.connections == 2


@pytest.mark.parametrize("sizes", [(1,), (3, 7), (1000,)])
def test_events_are_found_however_they_are_cut(sizes):
    stream = b'data: {"a": 1}\n\ndata:{"b": 2}\r\n\r\n: comment\n\nevent: x\ndata: [DONE]\n\n'

    async def parts():
        at, i = 0, 0
        while at < len(stream):
            yield stream[at : at + sizes[i % len(sizes)]]
            at += sizes[i % len(sizes)]
            i += 1

    async def collect():
        return [data async for data in events(parts())]

    assert asyncio.run(collect()) == [b'{"a": 1}', b'{"b": 2}']


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"",
    ],
)
def test_a_broken_answer_is_an_error(answer):
    async def main():
        async def handle(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        listener = await asyncio.start_server(handle, "127.0.0.1", 0)
        connection = Connection(Target("127.0.0.1", listener.sockets[0].getsockname()[1], False, ""))
        with pytest.raises(HttpError):
            await connection.request("GET", "/")

    asyncio.run(main())


def test_a_body_without_a_length_ends_with_the_connection():
    async def main():
        async def handle(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.0 200 OK\r\n\r\nhello")
            writer.close()

        listener = await asyncio.start_server(handle, "127.0.0.1", 0)
        connection = Connection(Target("127.0.0.1", listener.sockets[0].getsockname()[1], False, ""))
        assert await connection.request("GET", "/") == b"hello"
        assert await connection.request("GET", "/") == b"hello"

    asyncio.run(main())


def test_first_model():
    with running(FakeServer(api_key="secret")) as server:
        target = Target.parse(server.url)
        assert asyncio.run(first_model(target, Secret("secret"))) == "fake"
        with pytest.raises(ConfigError, match="wants a key"):
            asyncio.run(first_model(target, None))
    with pytest.raises(ConfigError, match="no server answers"):
        asyncio.run(first_model(target, None))
