"""What a running server listens on, read from /proc: one TCP port, and Unix sockets out of others' reach."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import pytest

from tests.e2e.conftest import start, stop

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="of Linux' /proc")

ORACLE = ("--load-format", "oracle", "--kv-cache-memory", "1MiB", "--max-model-len", "512")
LISTENING = "0A"  # TCP_LISTEN of the kernel's tcp_states.h
ACCEPTS = 0x10000  # __SO_ACCEPTCON of its net.h


class Tcp(NamedTuple):
    address: str
    port: int


def inodes(pid: int) -> set[str]:
    """Of the sockets that a process holds."""
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them, among others
            if match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(fd)):
                found.add(match[1])
    return found


def rows(pid: int, table: str) -> list[list[str]]:
    return [line.split() for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]]


def tcp(pid: int) -> set[Tcp]:
    mine, found = inodes(pid), set()
    for table in ("tcp", "tcp6"):
        for row in rows(pid, table):
            if row[3] == LISTENING and row[9] in mine:
                host, port = row[1].split(":")
                words = [bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8)]
                found.add(Tcp(str(ipaddress.ip_address(b"".join(words))), int(port, 16)))
    return found


def datagrams(pid: int) -> list[list[str]]:
    mine = inodes(pid)
    return [row for table in ("udp", "udp6", "raw", "raw6") for row in rows(pid, table) if row[9] in mine]


def unix(pid: int) -> set[str]:
    """Names of the Unix sockets that it accepts connections on."""
    mine = inodes(pid)
    return {
        row[7] if len(row) > 7 else ""
        for row in rows(pid, "unix")
        if row[6] in mine and int(row[3], 16) & ACCEPTS
    }


def check(server, address: str) -> int:
    """Returns the number of processes."""
    main = psutil.Process(server.process.pid)
    processes = [main, *main.children(recursive=True)]
    port = int(server.url.rpartition(":")[2])
    listeners = {process.pid: tcp(process.pid) for process in processes}
    assert listeners.pop(main.pid) == {Tcp(address, port)}
    assert not any(listeners.values()), "a child listens, or has inherited the listening socket"
    for process in processes:
        assert not datagrams(process.pid)
        for name in unix(process.pid):
            assert name.startswith("/"), f"abstract sockets have no permissions: {name!r}"
            if not Path(name).exists():
                continue  # taken away once both sides were there: nobody comes in any more
            directory = Path(name).parent.stat()
            assert directory.st_mode & 0o777 == 0o700, name
            assert directory.st_uid == os.geteuid()
    return len(processes)


def test_one_model(tmp_path):
    tmp_path.chmod(0o700)
    server = start(*ORACLE, "--admin-socket", str(tmp_path / "admin.sock"))
    try:
        assert check(server, "127.0.0.1") >= 2
        body = {"prompt": "x", "max_tokens": 4, "structured_outputs": {"choice": ["a", "b"]}}
        assert httpx.post(server.api + "/completions", json=body).status_code == 200
        check(server, "127.0.0.1")  # with the processes that only requests start
    finally:
        assert stop(server) == 0


def test_several_models():
    server = start("a=oracle", "b=oracle", *ORACLE, "--host", "::1")
    try:
        one = check(server, "::1")
        answer = httpx.post(server.api + "/completions", json={"model": "b", "prompt": "x", "max_tokens": 4})
        assert answer.status_code == 200
        assert check(server, "::1") > one
    finally:
        assert stop(server) == 0


def test_the_network_when_told_and_nothing_more():
    server = start(*ORACLE, "--host", "0.0.0.0", "--api-key", "k")
    try:
        check(server, "0.0.0.0")
    finally:
        assert stop(server) == 0


def test_the_tables_are_read_as_the_kernel_writes_them():
    import socket

    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
    ):
        found = tcp(os.getpid())
        assert Tcp("127.0.0.1", four.getsockname()[1]) in found
        assert Tcp("::1", six.getsockname()[1]) in found
        with socket.socket(type=socket.SOCK_DGRAM) as datagram:
            datagram.bind(("127.0.0.1", 0))
            assert datagrams(os.getpid())
        with socket.socket(socket.AF_UNIX) as abstract:
            abstract.bind(f"\0tenon-test-{os.getpid()}")
            abstract.listen()
            assert any(name.startswith("@tenon-test") for name in unix(os.getpid()))
