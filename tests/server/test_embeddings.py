"""/v1/embeddings, /pooling and /classify over an engine whose vectors are known."""

from __future__ import annotations

import asyncio
import base64

import numpy as np
import pytest

from tenon.server.app import build_app
from tenon.server.settings import ServerSettings
from tests.server.conftest import Client
from tests.server.fake_engine import FakeEngine
from tests.server.pooling_engine import CLASSIFY, CROSS, EMBED, PoolingEngine, vector
from tests.server.serving import serving

EMBEDDINGS = "/v1/embeddings"
ALL = [
    (EMBEDDINGS, {"input": "x"}),
    ("/pooling", {"input": "x"}),
    ("/classify", {"input": "x"}),
    ("/score", {"text_1": "x", "text_2": "y"}),
    ("/v1/score", {"text_1": "x", "text_2": "y"}),
    ("/rerank", {"query": "x", "documents": ["y"]}),
    ("/v1/rerank", {"query": "x", "documents": ["y"]}),
    ("/v2/rerank", {"query": "x", "documents": ["y"]}),
]


@pytest.fixture
def engine():
    return PoolingEngine(EMBED)


def unit(*ids, width=8):
    expected = vector(list(ids), 8)[:width]
    return expected / np.linalg.norm(expected)


async def embed(client, **body):
    response = await client.post(EMBEDDINGS, body)
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_text(client):
    answer = await embed(client, input="hello", model="fake")
    assert (answer["object"], answer["model"]) == ("list", "fake")
    (data,) = answer["data"]
    assert (data["index"], data["object"]) == (0, "embedding")
    np.testing.assert_allclose(data["embedding"], unit(*b"hello", 256), rtol=1e-6)
    assert answer["usage"] == {"prompt_tokens": 6, "total_tokens": 6}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["ab", "c"], [[*b"ab", 256], [*b"c", 256]]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ],
)
async def test_several_inputs_and_token_ids(given, expected, client):
    answer = await embed(client, input=given)
    assert [data["index"] for data in answer["data"]] == list(range(len(expected)))
    for data, ids in zip(answer["data"], expected, strict=True):
        np.testing.assert_allclose(data["embedding"], unit(*ids), rtol=1e-6)
    assert answer["usage"]["prompt_tokens"] == sum(map(len, expected))


async def test_base64_is_the_same_numbers(client):
    (plain,) = (await embed(client, input="hello", encoding_format="float"))["data"]
    (coded,) = (await embed(client, input="hello", encoding_format="base64"))["data"]
    numbers = np.frombuffer(base64.b64decode(coded["embedding"]), "<f4")
    np.testing.assert_array_equal(numbers, np.array(plain["embedding"], np.float32))


async def test_options(client, engine):
    (data,) = (await embed(client, input="hello", dimensions=3, truncate_prompt_tokens=4))["data"]
    np.testing.assert_allclose(data["embedding"], unit(*b"hell", 256, width=3), rtol=1e-6)
    await embed(
        client, input="hello", add_special_tokens=False, normalize=False, priority=4, cache_salt="mine"
    )
    inputs, params, priority, salt = engine.asked[-1]
    assert inputs[0].token_ids == [*b"hello"]
    assert (params.normalize, priority) == (False, 4)
    assert salt


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": ""}, None),
        ({"input": []}, "input"),
        ({"input": ["a", 3]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "x" * 100}, "input"),
        ({"input": {"text": "x"}}, "input"),
        ({"input": "x", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "x", "dimensions": 0}, "dimensions"),
        ({"input": "x", "dimensions": 9}, "dimensions"),
        ({"input": "x", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"input": "x", "truncate_prompt_tokens": 65}, "truncate_prompt_tokens"),
        ({"input": "x", "surprise": 1}, "surprise"),
        ({"input": "x", "model": "other"}, "model"),
        ({"input": "\\ud800"}, None),
    ],
)
async def test_what_is_refused(body, param, client):
    response = await client.post(EMBEDDINGS, body)
    if param is None:
        assert response.status_code in (200, 400)  # a special token is left of an empty text
        return
    assert response.status_code in (400, 404)
    assert response.json()["error"]["param"].startswith(param)


async def test_a_vector_for_each_token(client):
    response = await client.post("/pooling", {"input": "abc", "task": "token_embed"})
    (data,) = response.json()["data"]
    assert data["object"] == "pooling"
    assert np.shape(data["data"]) == (4, 8)


async def test_pooling_gives_what_the_model_has(client):
    response = await client.post("/pooling", {"input": ["abc"]})
    np.testing.assert_allclose(response.json()["data"][0]["data"], unit(*b"abc", 256), rtol=1e-6)


@pytest.mark.parametrize(("path", "body"), ALL)
async def test_a_model_that_generates_says_so(path, body):
    engine = FakeEngine()
    client = Client(build_app(engine, ServerSettings(), engine.served_model_names))
    status, error = await client.error(path, body)
    assert (status, error["param"], error["code"]) == (400, "model", "model_not_for_this")
    assert "generates text" in error["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/responses", {"input": "x"}),
        ("/classify", {"input": "x"}),
    ],
)
async def test_a_model_for_embeddings_says_so(path, body, client):
    status, error = await client.error(path, body)
    assert (status, error["param"], error["code"]) == (400, "model", "model_not_for_this")
    assert "gives embeddings: use /v1/embeddings" in error["message"]


async def test_classify():
    engine = PoolingEngine(CLASSIFY)
    client = Client(build_app(engine, ServerSettings(), engine.served_model_names))
    response = await client.post("/classify", {"input": [[97, 98, 99], [1, 200, 3]]})
    first, second = response.json()["data"]
    assert (first["index"], first["num_classes"]) == (0, 3)
    assert second["label"] == "so"
    assert second["probs"] == pytest.approx([1 / 256, 200 / 256, 3 / 256])
    await client.post("/classify", {"input": "x", "activation": False})
    assert engine.asked[-1][1].activation is False
    status, error = await client.error(EMBEDDINGS, {"input": "x"})
    assert (status, error["param"], error["code"]) == (400, "model", "model_not_for_this")
    assert "3 labels: use /classify" in error["message"]
    status, error = await client.error("/score", {"text_1": "x", "text_2": "y"})
    assert (status, error["param"], error["code"]) == (400, "model", "model_not_for_this")


async def test_one_label_is_classified_too():
    engine = PoolingEngine(CROSS)
    client = Client(build_app(engine, ServerSettings(), engine.served_model_names))
    (data,) = (await client.post("/classify", {"input": "a"})).json()["data"]
    assert (data["label"], data["num_classes"]) == ("LABEL_0", 1)


async def test_a_client_that_leaves_ends_its_request(engine):
    engine.delay = 30
    import httpx

    async with serving(engine) as (url, _):
        async with httpx.AsyncClient() as http:
            with pytest.raises(httpx.ReadTimeout):
                await http.post(url + EMBEDDINGS, json={"input": "x"}, timeout=0.3)
        for _ in range(100):
            if getattr(engine, "cancelled", False):
                return
            await asyncio.sleep(0.02)
    raise AssertionError("the engine still works for nobody")


async def test_the_openai_client(engine):
    import openai

    async with serving(engine) as (url, _):
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none")
        answer = await client.embeddings.create(model="fake", input=["hello", "you"])
        as_floats = await client.embeddings.create(model="fake", input="hello", encoding_format="float")
    np.testing.assert_allclose(answer.data[0].embedding, unit(*b"hello", 256), rtol=1e-6)
    assert answer.data[0].embedding == pytest.approx(as_floats.data[0].embedding)
    assert answer.usage.total_tokens == 10


async def test_metrics_count_tokens(client, app):
    await embed(client, input="hello")
    text = app.metrics.render().decode()
    assert 'tenon:prompt_tokens_total{model_name="fake"} 6.0' in text
    assert 'tenon:request_success_total{finished_reason="stop",model_name="fake"} 1.0' in text
