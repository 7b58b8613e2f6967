"""The real huggingface_hub against a hub of our own on this machine: what is asked for, and what is believed.

In processes of their own, for the library reads its settings once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")
ROOT = Path(__file__).parents[1]
COMMITS = ["a" * 40, "b" * 40]
TOKEN = "hf_canary"


class Hub:
    """`main` moves with every question for it. `requests` are (path, authorization)."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.requests: list[tuple[str, str]] = []
        self.redirect = ""  # where the content of files is said to be
        self.asked = 0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def commit(self, revision: str) -> str:
        if re.fullmatch("[0-9a-f]{40}", revision):
            return revision
        self.asked += 1
        return COMMITS[min(self.asked - 1, 1)]

    def answer(self, to: BaseHTTPRequestHandler) -> None:
        path = to.path.partition("?")[0]
        self.requests.append((path, to.headers.get("authorization", "")))
        if match := re.fullmatch(r"/api/models/org/m(?:/revision/([^/]+))?", path):
            siblings = [{"rfilename": name} for name in self.files]
            content = {"id": "org/m", "sha": self.commit(match[1] or "main"), "siblings": siblings}
            self.send(to, 200, json.dumps(content).encode(), {"content-type": "application/json"})
        elif match := re.fullmatch(r"/api/models/org/m/tree/([^/]+)", path):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in self.files.items()
            ]
            self.send(to, 200, json.dumps(tree).encode(), {"content-type": "application/json"})
        elif (match := re.fullmatch(r"/org/m/resolve/([^/]+)/(.+)", path)) and match[2] in self.files:
            data = self.files[match[2]]
            about = {"x-repo-commit": self.commit(match[1]), "etag": f'"{hashlib.sha1(data).hexdigest()}"'}
            if self.redirect:
                about |= {"location": self.redirect + path, "x-linked-size": str(len(data))}
                about |= {"x-linked-etag": about["etag"]}
                self.send(to, 302, b"", about)
            else:
                self.send(to, 200, data, about)
        else:
            self.send(to, 404, b"", {"x-error-code": "EntryNotFound"})

    def send(self, to: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
        to.send_response(status)
        for name, value in ({"content-length": str(len(body))} | headers).items():
            to.send_header(name, value)
        to.end_headers()
        if to.command == "GET":
            to.wfile.write(body)


def fetch(hub: Hub, home: Path, *arguments: str | None, **changes: str) -> str:
    """What `tenon.hub.fetch` says: the path, or the error."""
    code = (
        f"from tenon import hub\ntry: print('path', hub.fetch('org/m', *{list(arguments)!r}))\n"
        "except Exception as e: print(type(e).__name__, e)"
    )
    variables = os.environ | {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT), "HF_HUB_DOWNLOAD_TIMEOUT": "5",
        "HF_HUB_ETAG_TIMEOUT": "5", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }  # fmt: skip
    variables |= changes
    variables.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=120
    )
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr


FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "modules.json": b"[]",
    "1_Pooling/config.json": b"{}",
    "evil.py": b"raise SystemExit",
    "pytorch_model.bin": b"pickle",
}
PARTS = {f"m-0000{number}-of-00003.gguf": b"GGUF%d" % number for number in (1, 2, 3)}


@pytest.mark.parametrize(
    ("files", "arguments"),
    [(FILES, ()), (PARTS, ("m-00001-of-00003.gguf",)), (PARTS, ()), (FILES, (None, "v1"))],
)
def test_all_files_are_of_one_commit(tmp_path, files, arguments):
    """`main` moves while we download; nothing of the later commit is mixed in."""
    hub = Hub(files)
    said = fetch(hub, tmp_path, *arguments)
    assert said.startswith(f"path {tmp_path}"), said
    kept = [path for path in tmp_path.rglob("*") if "snapshots" in path.parts and path.is_file()]
    assert {path.name for path in kept} >= ({"config.json"} if files is FILES else set(PARTS))
    assert {COMMITS[0] in path.parts for path in kept} == {True}
    assert not [path for path in kept if path.suffix in (".py", ".bin")]
    downloads = [path for path, _ in hub.requests if "/resolve/" in path]
    assert downloads
    asked = "v1" if arguments[1:] else "main"
    by_branch = [path for path in downloads if f"/{COMMITS[0]}/" not in path]
    assert all(f"/resolve/{asked}/" in path for path in by_branch)
    assert len(set(by_branch)) <= 1, "one question may name the branch: the one that pins it"


def test_the_token_goes_to_no_other_host(tmp_path):
    """A hub that redirects downloads: who gets them asked is given no credentials."""
    foreign = Hub(FILES)
    hub = Hub(FILES)
    hub.redirect = foreign.url.replace("127.0.0.1", "localhost")
    fetch(hub, tmp_path)
    assert any(TOKEN in authorization for _, authorization in hub.requests)
    assert foreign.requests, "the redirect was followed"
    assert not any(authorization for _, authorization in foreign.requests)


def test_names_that_climb_out(tmp_path):
    outside = tmp_path / "outside.json"
    names = {
        "../../../../../outside.json": b"x",
        "/etc/outside.json": b"x",
        "a/../../../../../outside.json": b"x",
    }
    hub = Hub({"config.json": b"{}", **names})
    before = set(tmp_path.parent.rglob("*outside*"))
    fetch(hub, tmp_path / "home" / "hf")
    assert set(tmp_path.parent.rglob("*outside*")) == before
    assert not outside.exists()
    assert not Path("/etc/outside.json").exists()


def test_a_file_that_is_cut_off_or_another(tmp_path):
    hub = Hub(FILES)

    def lie(to, status, body, headers, send=hub.send):
        if to.command == "GET" and "/resolve/" in to.path and body:
            to.close_connection = True
            to.send_response(status)
            for name, value in (headers | {"content-length": str(len(body) + 100)}).items():
                to.send_header(name, value)
            to.end_headers()
            to.wfile.write(body)
            return
        send(to, status, body, headers)

    hub.send = lie
    said = fetch(hub, tmp_path)
    assert said.startswith("ModelNotFound"), said
    assert TOKEN not in said


def endless(hub: Hub, what: str, part: bytes, pause: float) -> None:
    """From now on an answer whose path holds `what` has no end."""

    def send(to, status, body, headers, send=hub.send):
        if to.command != "GET" or what not in to.path:
            return send(to, status, body, headers)
        to.close_connection = True
        to.send_response(status)
        for name, value in (headers | {"transfer-encoding": "chunked"}).items():
            if name != "content-length":
                to.send_header(name, value)
        to.end_headers()
        try:
            while True:
                to.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                time.sleep(pause)
        except OSError:
            return None

    hub.send = send


def test_a_file_without_end(tmp_path):
    hub = Hub(FILES)
    endless(hub, "/model.safetensors", bytes(1 << 20), 0.0)
    said = fetch(hub, tmp_path)
    total = sum(map(len, FILES.values()))
    assert said.startswith("ModelNotFound cannot get org/m"), said
    assert f"more comes than the {total} bytes that were announced" in said


@pytest.mark.parametrize("what", ["/model.safetensors", "/tree/", "/api/models/org/m/revision"])
def test_an_answer_that_drips(tmp_path, what):
    hub = Hub(FILES)
    endless(hub, what, b" ", 0.1)
    said = fetch(hub, tmp_path, TENON_DOWNLOAD_TIMEOUT="1")
    assert "nothing has come for 1 s; it was given up" in said, said
