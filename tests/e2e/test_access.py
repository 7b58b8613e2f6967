"""Keys, certificates and addresses of the real command, over real sockets."""

from __future__ import annotations

import asyncio
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import trustme

from tests.e2e.conftest import ROOT, start, stop

ORACLE = ("--load-format", "oracle", "--kv-cache-memory", "128KiB", "--max-model-len", "512")
CHAT = {"messages": [{"role": "user", "content": "hello there " * 20}], "max_tokens": 4}


def tenon(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tenon", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def new_key(path: Path, name: str) -> str:
    return tenon("keys", "add", name, "--file", str(path)).stdout.strip()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_no_server_for_the_network_without_a_key(host):
    done = tenon("serve", *ORACLE, "--host", host, "--port", "0")
    assert done.returncode == 2
    assert "--insecure-no-auth" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_server_for_the_network_when_told(monkeypatch):
    monkeypatch.delenv("TENON_API_KEY", raising=False)
    server = start(*ORACLE, "--host", "0.0.0.0", "--insecure-no-auth")
    try:
        answer = httpx.get(server.url + "/v1/models", headers={"host": "any.name"})
        assert answer.status_code == 200
    finally:
        assert stop(server) == 0


def test_keys_of_a_file(tmp_path):
    """Made, listed and removed by the command; the running server follows."""
    path = tmp_path / "keys"
    alice, bob = new_key(path, "alice"), new_key(path, "bob")
    assert alice.startswith("tenon-")
    listed = tenon("keys", "list", "--file", str(path)).stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["alice", "bob"]
    assert alice not in listed
    server = start(*ORACLE, "--api-keys-file", str(path), "--host", "0.0.0.0")
    try:
        assert "YOUR_KEY" in server.greeting

        def ask(key: str) -> httpx.Response:
            headers = {"authorization": f"Bearer {key}"}
            return httpx.post(server.api + "/chat/completions", json=CHAT, headers=headers)

        def cached(key: str) -> int:
            return ask(key).json()["usage"]["prompt_tokens_details"]["cached_tokens"]

        assert ask("nobody").status_code == 401
        assert cached(alice) == 0
        assert cached(alice) > 0
        assert cached(bob) == 0, "nobody can tell what another key has asked"
        assert cached(bob) > 0
        done = tenon("keys", "remove", "alice", "--file", str(path))
        assert done.returncode == 0
        assert [ask(alice).status_code, ask(bob).status_code] == [401, 200]
        carol = new_key(path, "carol")
        assert ask(carol).status_code == 200
        server.process.send_signal(signal.SIGHUP)
        assert ask(carol).status_code == 200
    finally:
        assert stop(server) == 0


def test_certificates(tmp_path):
    """HTTPS of the real command, and a new certificate on SIGHUP."""
    authority = trustme.CA()

    def write() -> None:
        made = authority.issue_cert("127.0.0.1")
        chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
        (tmp_path / "both.pem").write_bytes(made.private_key_pem.bytes() + chain)

    def shown() -> bytes:
        context = ssl.create_default_context()
        authority.configure_trust(context)

        async def look() -> bytes:
            port = int(server.url.rpartition(":")[2])
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.close()
            return writer.get_extra_info("ssl_object").getpeercert(binary_form=True)

        return asyncio.run(look())

    write()
    server = start(*ORACLE, "--tls-cert", str(tmp_path / "both.pem"))
    try:
        assert server.url.startswith("https://")
        context = ssl.create_default_context()
        authority.configure_trust(context)
        with httpx.Client(verify=context) as client:
            stream = client.post(server.api + "/chat/completions", json=CHAT | {"stream": True})
            assert stream.text.endswith("data: [DONE]\n\n")
        before = shown()
        write()
        server.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while shown() == before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert shown() != before
    finally:
        assert stop(server) == 0


def test_the_operators_socket(tmp_path):
    path = tmp_path / "admin.sock"
    server = start("a=oracle", "b=oracle", *ORACLE, "--api-key", "k", "--admin-socket", str(path))
    try:
        assert path.stat().st_mode & 0o777 == 0o600
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, base_url="http://localhost", timeout=60) as admin:

            def states() -> list[str]:
                return [model["state"] for model in admin.get("/admin/report").json()["models"]]

            assert admin.get("/admin/report").json()["keys"] == ["option-1"]
            assert states() == ["loaded", "unloaded"]
            assert admin.post("/admin/models/b/load").json() == {"done": 1}
            assert states() == ["loaded", "loaded"]
            key = {"authorization": "Bearer k"}
            body = {"prompt": "hello there " * 20, "max_tokens": 2, "model": "b"}

            def cached() -> int:
                usage = httpx.post(server.api + "/completions", json=body, headers=key).json()["usage"]
                return usage["prompt_tokens_details"]["cached_tokens"]

            assert [cached(), cached() > 0] == [0, True]
            assert admin.post("/admin/prefix-cache/reset").json() == {"done": 2}
            assert cached() == 0
            assert admin.post("/admin/models/b/unload").json() == {"done": 1}
            assert states() == ["loaded", "unloaded"]
            assert admin.post("/admin/models/b/unload").status_code == 409
            assert admin.post("/admin/log-level", json={"level": "debug"}).status_code == 200
        for route in ("/admin/report", "/admin/requests"):
            assert httpx.get(server.url + route).status_code == 401
            assert httpx.get(server.url + route, headers=key).status_code == 404
    finally:
        assert stop(server) == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--tls-key", "x"), "--tls-cert"),
        (("--tls-cert", "/none"), "No such file"),
        (("--api-keys-file", "/none"), "No such file"),
        (("--cors-origin", "example.org"), "--cors-origin"),
        (("--allowed-host", "http://a"), "--allowed-host"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(arguments, says):
    done = tenon("serve", *ORACLE, "--port", "0", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
