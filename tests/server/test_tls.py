"""HTTPS on real sockets, with certificates made here."""

from __future__ import annotations

import asyncio
import logging
import ssl

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from tenon.errors import ConfigError
from tenon.server.limits import Limits
from tenon.server.settings import ServerSettings
from tenon.server.tls import Certificate
from tests.server.fake_engine import FakeEngine
from tests.server.serving import serving

BODY = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def files(tmp_path, authority):
    return write(authority, tmp_path / "cert.pem", tmp_path / "key.pem")


def write(authority, chain, key):
    made = authority.issue_cert("127.0.0.1", "localhost")
    chain.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    key.write_bytes(made.private_key_pem.bytes())
    return chain, key


def trusting(authority, **context) -> ssl.SSLContext:
    found = ssl.create_default_context()
    authority.configure_trust(found)
    for name, value in context.items():
        setattr(found, name, value)
    return found


async def shown(url, authority) -> bytes:
    """The certificate that a new connection is shown."""
    port = int(url.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(authority))
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return found


async def test_requests_and_streams(files, authority):
    settings = ServerSettings(tls=Certificate(*files))
    async with (
        serving(FakeEngine(), settings) as (url, _),
        httpx.AsyncClient(base_url=url, verify=trusting(authority)) as client,
    ):
        assert url.startswith("https://")
        assert (await client.post("/v1/chat/completions", json=BODY)).status_code == 200
        stream = await client.post("/v1/chat/completions", json=BODY | {"stream": True})
        assert stream.text.endswith("data: [DONE]\n\n")
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + "/live")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_old_versions_and_plain_text_are_refused(files, authority):
    async with serving(FakeEngine(), ServerSettings(tls=Certificate(*files))) as (url, _):
        port = int(url.rpartition(":")[2])
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = trusting(authority, minimum_version=version, maximum_version=version)
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.close()
        old = trusting(authority)
        old.set_ciphers("DEFAULT@SECLEVEL=0")
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=old)
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context())
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/1.1 200" not in await asyncio.wait_for(reader.read(), 10)
        writer.close()
        async with httpx.AsyncClient(verify=trusting(authority)) as client:
            assert (await client.get(url + "/live")).status_code == 200


async def test_a_new_certificate_without_a_restart(files, authority, caplog):
    caplog.set_level(logging.INFO)
    tls = Certificate(*files)
    async with (
        serving(FakeEngine(), ServerSettings(tls=tls)) as (url, _),
        httpx.AsyncClient(base_url=url, verify=trusting(authority)) as client,
    ):
        await client.get("/live")  # a connection that outlives the change
        first = await shown(url, authority)
        assert await shown(url, authority) == first
        good = [path.read_bytes() for path in files]
        write(authority, *files)
        files[1].write_bytes(good[1])  # half of the pair
        assert not tls.watched.refresh()
        assert "stays in force" in caplog.text
        assert "is used from now on" not in caplog.text
        assert await shown(url, authority) == first
        write(authority, *files)
        assert tls.watched.refresh()
        assert caplog.text.count(f"the certificate in {files[0]} is used from now on") == 1
        assert await shown(url, authority) != first
        assert (await client.get("/live")).status_code == 200
        files[0].unlink()
        assert not tls.watched.refresh()
        await shown(url, authority)


async def test_clients_with_certificates_only(files, authority, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    settings = ServerSettings(tls=Certificate(*files, client_ca=tmp_path / "ca.pem"))
    async with serving(FakeEngine(), settings) as (url, _):
        mine, foreign = trusting(authority), trusting(authority)
        authority.issue_cert("client@example.org").configure_cert(mine)
        trustme.CA().issue_cert("client@example.org").configure_cert(foreign)
        async with httpx.AsyncClient(verify=mine) as client:
            assert (await client.get(url + "/v1/models")).status_code == 200
        for context in (trusting(authority), foreign):
            async with httpx.AsyncClient(verify=context) as client:
                with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
                    await client.get(url + "/live")


def test_what_is_no_certificate(files, authority, tmp_path):
    other = write(authority, tmp_path / "other.pem", tmp_path / "other-key.pem")
    garbage = tmp_path / "garbage"
    garbage.write_text("not PEM")
    for pair, why in {
        (files[0], other[1]): "key values mismatch",
        (garbage, files[1]): "cannot use the certificate",
        (files[0], garbage): "cannot use the certificate",
        (tmp_path / "none", files[1]): "No such file",
    }.items():
        with pytest.raises(ConfigError, match=why):
            Certificate(*pair)
    with pytest.raises(ConfigError, match="garbage"):
        Certificate(*files, client_ca=garbage)
    chain, key = files
    both = tmp_path / "both.pem"
    both.write_bytes(key.read_bytes() + chain.read_bytes())
    Certificate(both)
    with pytest.raises(ConfigError, match=r"there is no key in .*cert\.pem: name its file with --tls-key"):
        Certificate(chain)
    with pytest.raises(ConfigError, match=r"cannot use the certificate and key in .*garbage"):
        Certificate(garbage)


def test_an_encrypted_key_asks_nobody(files, tmp_path):
    plain = serialization.load_pem_private_key(files[1].read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        plain.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="decrypt it first"):
        Certificate(files[0], locked)


async def test_a_handshake_that_does_not_come_ends(files):
    """With the time that a head may take; asyncio's own is a minute."""
    settings = ServerSettings(tls=Certificate(*files), limits=Limits(header_seconds=0.3))
    async with serving(FakeEngine(), settings) as (url, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()


async def test_a_handshake_that_does_not_come_keeps_nobody_waiting(files, authority, caplog):
    caplog.set_level(logging.ERROR)
    async with serving(FakeEngine(), ServerSettings(tls=Certificate(*files))) as (url, _):
        silent = [await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2])) for _ in range(20)]
        async with httpx.AsyncClient(verify=trusting(authority)) as client:
            assert (await client.get(url + "/live")).status_code == 200
        for _, writer in silent:
            writer.close()
    assert "Traceback" not in caplog.text
