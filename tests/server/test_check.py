"""GET /health_generate."""

from __future__ import annotations

import pytest

from tenon.server.app import build_app
from tenon.server.settings import ServerSettings
from tests.server.conftest import Client
from tests.server.pooling_engine import EMBED, PoolingEngine

PATH = "/health_generate"


async def test_one_token_is_computed(client, engine):
    response = await client.http.get(PATH, params={"model": engine.model_name})
    assert response.status_code == 200
    answer = response.json()
    assert answer.pop("seconds") > 0
    assert answer == {"status": "ok", "model": engine.model_name}
    (stream,) = engine.requests
    assert stream.params.max_tokens == 1
    assert engine.running == 0


async def test_one_vector_is_computed():
    engine = PoolingEngine(EMBED)
    client = Client(build_app(engine, ServerSettings(), engine.served_model_names))
    response = await client.http.get(PATH)
    assert (response.status_code, response.json()["status"]) == (200, "ok")
    (asked,) = engine.asked
    assert [given.token_ids for given in asked[0]] == [[1]]


async def test_an_engine_that_dies_of_it(client, engine):
    engine.die_after = 0
    response = await client.http.get(PATH)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_restarted")


async def test_a_key_is_asked_for(engine):
    client = Client(build_app(engine, ServerSettings.with_keys(["key"]), engine.served_model_names))
    assert (await client.http.get(PATH)).status_code == 401
    assert not engine.requests
    assert (await client.http.get(PATH, headers={"x-api-key": "key"})).status_code == 200


@pytest.mark.parametrize(("query", "status"), [("?model=none", 404), ("?nodel=x", 400)])
async def test_what_cannot_be_asked_for(client, engine, query, status):
    assert (await client.http.get(PATH + query)).status_code == status
    assert not engine.requests
