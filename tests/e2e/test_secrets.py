"""Words that must not leave: planted in every part of requests, then looked for wherever a server writes.

A server at its chattiest (`--log-level debug`), requests of every kind, faults at every stage, and the death
of its engine. Files and batches are not used here: they are stored by design (docs/access.md).
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tenon.util.failpoint import STAGES
from tests.e2e.conftest import RealServer, start, stop

WORDS = (
    "key", "file_key", "wrong_key", "prompt", "system", "schema", "bad_schema", "regex", "output", "header",
    "field", "value", "tool", "arguments", "model", "salt", "stop", "embedding", "query", "user", "broken",
)  # fmt: skip
CRASH = "crash-here"


@pytest.fixture(scope="module")
def canaries() -> dict[str, str]:
    """A word for each place, which no other text can hold."""
    return {place: f"canary{secrets.token_hex(8)}" for place in WORDS}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Everything that the server may write to."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def server(place, canaries) -> Iterator[RealServer]:
    from tenon.server.keys import HEAD, hashed

    keys = place / "keys"
    file_key = canaries["file_key"]
    keys.write_text(f"{HEAD}tester sha256:{hashed('', file_key).id}\n")
    keys.chmod(0o600)
    faults = [f"{stage}@at-{stage}:ValueError" for stage in STAGES] + [f"sample@{CRASH}:exit=9"]
    (place / "tmp").mkdir()
    variables = {
        "TENON_HOME": str(place / "home"),
        "TMPDIR": str(place / "tmp"),
        "TENON_FAILPOINTS": ",".join(faults),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        server = start(
            *("--load-format", "oracle", "--kv-cache-memory", "1MiB", "--max-model-len", "1024"),
            *("--log-level", "debug", "--data-dir", str(place / "data")),
            *("--api-keys-file", str(keys), "--api-key", canaries["key"]),
        )
    yield server
    if server.process.poll() is None:
        server.process.kill()
        server.process.wait()


def requests(words: dict[str, str]) -> Iterator[tuple[str, object]]:
    """Path and body of requests that go well, and of requests that do not."""
    chat, text = "/v1/chat/completions", "/v1/completions"
    messages = [
        {"role": "system", "content": words["system"]},
        {"role": "user", "content": words["prompt"], "name": words["user"]},
    ]
    good = {"messages": messages, "max_tokens": 8, "logprobs": True}
    schema = {"type": "object", "properties": {words["schema"]: {"const": words["output"]}}}
    bad_schema = {"type": words["bad_schema"], "properties": {words["bad_schema"]: 7}}
    tool = {"name": words["tool"], "parameters": {"type": "object", "properties": {words["arguments"]: {}}}}
    for stream in (False, True):
        yield chat, good | {"stream": stream, "user": words["user"]}
        yield chat, good | {"stream": stream, "stop": [words["stop"]], "cache_salt": words["salt"]}
        yield text, {"prompt": words["prompt"], "max_tokens": 4, "stream": stream, "echo": True}
        yield (
            text,
            {"prompt": words["prompt"], "max_tokens": 60, "stream": stream}
            | {"structured_outputs": {"choice": [words["output"]]}},
        )
        yield "/v1/responses", {"input": words["prompt"], "max_output_tokens": 16, "stream": stream}
        yield "/v1/messages", {"model": "x", "max_tokens": 4, "messages": messages[1:], "stream": stream}
    for kind, found in (("good", schema), ("bad", bad_schema)):
        form = {"type": "json_schema", "json_schema": {"name": kind, "schema": found}}
        yield chat, good | {"response_format": form}
    yield text, {"prompt": "x", "structured_outputs": {"regex": f"({words['regex']}"}}
    yield text, {"prompt": "x", "structured_outputs": {"grammar": f"start: {words['regex']} ::"}}
    yield chat, good | {"tools": [{"type": "function", "function": tool}], "tool_choice": "required"}
    yield chat, good | {"model": words["model"]}
    yield chat, good | {words["field"]: words["value"]}
    yield chat, good | {"temperature": words["value"]}
    yield chat, good | {"logit_bias": {words["value"]: 1}, "metadata": {words["field"]: words["value"]}}
    yield chat, good | {"chat_template_kwargs": {words["field"]: words["value"]}}
    yield chat, {"messages": [{"role": words["value"], "content": words["prompt"]}]}
    yield text, {"prompt": words["prompt"] * 2000}
    yield text, f'{{"prompt": "{words["broken"]}'.encode()
    yield text, f'{{"{words["broken"]}": \ud800}}'.encode(errors="surrogatepass")
    yield "/v1/embeddings", {"input": words["embedding"]}
    yield "/rerank", {"query": words["query"], "documents": [words["embedding"]]}
    yield "/tokenize", {"prompt": words["prompt"]}
    yield "/detokenize", {"tokens": [words["value"]]}


def written(place: Path) -> Iterator[tuple[str, bytes]]:
    for path in place.rglob("*"):
        if path.is_file():
            yield str(path.relative_to(place)), path.read_bytes()


def processes(server: RealServer) -> list[psutil.Process]:
    main = psutil.Process(server.process.pid)
    return [main, *main.children(recursive=True)]


def test_no_word_leaves(server, place, canaries):
    sinks: dict[str, bytes] = {}
    statuses: set[int] = set()
    headers = {"x-secret": canaries["header"], "cookie": canaries["header"], "user-agent": canaries["header"]}
    kinds = {"content-type": "application/json", "x-api-key": canaries["file_key"]}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        for path, body in requests(canaries):
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            for key in (canaries["key"], canaries["wrong_key"]):
                auth = {"authorization": f"Bearer {key}"}
                answer = client.post(path, content=content, headers=kinds | auth)
                statuses.add(answer.status_code)
                if key == canaries["wrong_key"]:
                    sinks[f"refusal of {path}"] = answer.content
                for word in ("key", "file_key", "wrong_key", "header"):
                    assert canaries[word].encode() not in answer.content + repr(answer.headers).encode()
        auth = {"authorization": f"Bearer {canaries['key']}"}
        for stage in STAGES:
            messages = [{"role": "user", "content": f"{canaries['prompt']} at-{stage}"}]
            for stream in (False, True):
                answer = client.post(
                    "/v1/chat/completions",
                    json={"messages": messages, "max_tokens": 8, "stream": stream},
                    headers=auth | {"x-request-id": f"at-{stage}"},
                )
                statuses.add(answer.status_code)
                sinks[f"error at {stage}, {stream}"] = answer.content if answer.status_code >= 500 else b""
        for path in ("/metrics", "/openapi.json", "/health", "/ready", "/version", "/v1/models", "/nope"):
            sinks[path] = client.get(path, headers=auth).content
        for process in processes(server):
            with contextlib.suppress(psutil.NoSuchProcess):  # a worker that has ended
                sinks[f"command line of {process.pid}"] = " ".join(process.cmdline()).encode()
        sinks |= dict(written(place))
        # The engine's own death, with requests in flight.
        answer = client.post(
            "/v1/completions",
            json={"prompt": canaries["prompt"], "max_tokens": 8},
            headers=auth | {"x-request-id": CRASH},
        )
        statuses.add(answer.status_code)
        sinks["the engine's death"] = answer.content
    assert {200, 400, 401, 404, 500} <= statuses
    stop(server)
    sinks["log"] = server.log.encode()
    sinks |= {f"{name}, at the end": content for name, content in written(place)}
    found = {
        (name, word)
        for name, content in sinks.items()
        for word, text in canaries.items()
        if text.encode() in content
    }
    assert not found
    assert b"key=tester" in sinks["log"] or b"key=option-1" in sinks["log"], "the name of a key is no secret"
    assert sinks["log"].count(b"Traceback") >= 5, "faults are logged, without their texts"
    assert b"canary" not in sinks["log"]


def test_children_do_not_inherit_the_key(canaries, monkeypatch):
    monkeypatch.setenv("TENON_API_KEY", canaries["key"])
    server = start("--load-format", "oracle", "--kv-cache-memory", "1MiB", "--max-model-len", "128")
    try:
        assert httpx.get(server.url + "/v1/models").status_code == 401
        _, *children = processes(server)
        assert children
        for process in children:
            assert canaries["key"] not in str(process.environ())
    finally:
        assert stop(server) == 0
