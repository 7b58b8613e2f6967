"""Every field of every route with every odd value: an answer or a 4xx that names it, and the next request
works. The engine is the real one, with a model that costs nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tenon.config import EngineArgs
from tenon.engine.async_engine import AsyncEngine
from tenon.engine.client import InProcessClient
from tenon.server.app import build_app
from tenon.server.settings import ServerSettings
from tests.server.boundaries import VALUES, fields, schemas, with_value
from tests.server.conftest import Client
from tests.server.fake_engine import FakeEngine
from tests.server.pooling_engine import CROSS, EMBED, PoolingEngine

USER = [{"role": "user", "content": "hi"}]
GOOD = {
    "/v1/chat/completions": {"messages": USER, "max_tokens": 2, "temperature": 0},
    "/v1/completions": {"prompt": "hi", "max_tokens": 2, "temperature": 0},
    "/v1/responses": {"input": "hi", "max_output_tokens": 2, "temperature": 0},
    "/v1/messages": {"messages": USER, "max_tokens": 2, "model": "oracle", "temperature": 0},
    "/v1/messages/count_tokens": {"messages": USER, "model": "oracle"},
    "/tokenize": {"prompt": "hi"},
    "/detokenize": {"tokens": [104, 105]},
    "/v1/batches": {"input_file_id": "file-x", "endpoint": "/v1/completions", "completion_window": "24h"},
    "/v1/embeddings": {"input": ["hi", "ho"]},
    "/pooling": {"input": "hi"},
    "/classify": {"input": "hi"},
    "/v1/score": {"text_1": "hi", "text_2": ["ho", "hu"]},
    "/v1/rerank": {"query": "hi", "documents": ["ho", "hu"]},
}
SAME = {"/score": "/v1/score", "/rerank": "/v1/rerank", "/v2/rerank": "/v1/rerank"}  # as routes
ENGINES = {"embeddings": EMBED, "pooling": EMBED, "classify": CROSS, "score": CROSS, "rerank": CROSS}
SCHEMAS = schemas(build_app(FakeEngine()))
LINE = b'{"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "a"}}\n'
LARGE = {"1 MB of text", "lists in lists", "objects in objects", "lists without an end"}  # once for each root
# What is wrong with the whole body, so that no field is named.
WHOLE = {
    "NaN",
    "Infinity",
    "half a character",
    "lists in lists",
    "objects in objects",
    "lists without an end",
}


@asynccontextmanager
async def client_of(path: str, settings: ServerSettings) -> AsyncIterator[Client]:
    spec = ENGINES.get(path.rpartition("/")[2])
    if spec is not None:
        yield Client(build_app(PoolingEngine(spec), settings))
        return
    config = EngineArgs(load_format="oracle", model="oracle").resolve()
    engine = AsyncEngine(config, InProcessClient(config))
    await engine.start()
    yield Client(build_app(engine, settings))
    await engine.stop()


def test_no_route_is_forgotten():
    assert set(GOOD) | set(SAME) == set(SCHEMAS)
    assert all(SCHEMAS[one] is SCHEMAS[other] for one, other in SAME.items())
    assert sum(1 for path in GOOD for _ in fields(SCHEMAS[path])) > 200


@pytest.mark.parametrize("path", GOOD)
async def test_every_field(path, tmp_path):
    faults = []
    async with client_of(path, ServerSettings(data_dir=tmp_path)) as client:
        good = GOOD[path]
        if path == "/v1/batches":
            form = {"file": ("a", LINE), "purpose": (None, "batch")}
            good = good | {"input_file_id": (await client.http.post("/v1/files", files=form)).json()["id"]}
        for field, holder in fields(SCHEMAS[path]):
            for what, value in VALUES.items():
                if what in LARGE and len(field) > 1:
                    continue
                response = await client.post(path, with_value(good, field, holder, value))
                if reason := fault(response, str(field[0]), what):
                    faults.append(f"{'.'.join(map(str, field))}, {what}: {reason}: {response.text[:200]}")
            canary = await client.post(path, good)
            assert canary.status_code == 200, f"after {field}: {canary.text}"
    assert not faults, "\n".join([f"{len(faults)} faults", *faults[:40]])


def fault(response: httpx.Response, field: str, what: str) -> str | None:
    """What is wrong with an answer."""
    if response.status_code == 200:
        return "accepted" if what in WHOLE - {"half a character"} else None
    if response.status_code not in (400, 404, 413):
        return f"status {response.status_code}"
    error = response.json()["error"]
    if not error["message"]:
        return "says nothing"
    if "context_length" in str(error.get("code")) or "tokens and the model" in error["message"]:
        return None  # of several fields, the one that is too long is not known
    if what not in WHOLE and field not in f"{error.get('param')} {error['message']}":
        return "does not name the field"
    if what not in WHOLE and "param" in error and response.status_code == 400 and not error["param"]:
        return "no param"
    return None
