"""What took others down: each case is answered as it should be, and the request after it too."""

from __future__ import annotations

import json

from tenon.config import EngineArgs
from tenon.engine.async_engine import AsyncEngine
from tenon.engine.client import InProcessClient
from tenon.server.app import build_app
from tests.server.conftest import Client
from tests.server.peer_cases import CASES, VECTORS, Case
from tests.server.pooling_engine import EMBED, PoolingEngine

CANARY = Case("", "the next request", "/v1/completions", {"prompt": "hi", "max_tokens": 4, "temperature": 0})


async def faults(client: Client, cases: list[Case], canary: Case) -> list[str]:
    found = []
    for case in cases:
        response = await client.post(case.path, case.body)
        if response.status_code not in case.statuses:
            found.append(f"{case.name} ({case.source}): {response.status_code} {response.text[:200]}")
        elif response.status_code >= 400 and not response.json()["error"]["message"]:
            found.append(f"{case.name}: says nothing")
        after = await client.post(canary.path, canary.body)
        assert after.status_code == 200, f"after {case.name}: {after.text[:200]}"
    return found


async def test_generating():
    config = EngineArgs(load_format="oracle", model="oracle").resolve()
    engine = AsyncEngine(config, InProcessClient(config))
    await engine.start()
    try:
        found = await faults(Client(build_app(engine)), CASES, CANARY)
        assert not engine.num_in_flight
    finally:
        await engine.stop()
    assert not found, "\n".join(found)


async def test_vectors():
    canary = Case("", "the next request", "/v1/embeddings", {"input": "hi"})
    found = await faults(Client(build_app(PoolingEngine(EMBED))), VECTORS, canary)
    assert not found, "\n".join(found)


def test_there_are_many_and_each_has_a_name():
    cases = [*CASES, *VECTORS]
    assert len(cases) >= 80
    assert len({(case.path, case.name) for case in cases}) == len(cases)
    assert all(case.source and not set(case.statuses) & {500, 502, 503, 504} for case in cases)
    assert all(json.dumps(case.body) for case in cases if not isinstance(case.body, bytes))
