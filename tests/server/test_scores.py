"""/score and /rerank over an engine whose vectors are known."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tenon.server.app import build_app
from tenon.server.settings import ServerSettings
from tests.server.conftest import Client
from tests.server.pooling_engine import CROSS, EMBED, PoolingEngine, vector
from tests.server.serving import serving


@pytest.fixture(params=[EMBED, CROSS], ids=["embeddings", "cross-encoder"])
def engine(request):
    return PoolingEngine(request.param)


def expected(engine, first, second):
    """The score by definition."""
    if engine.pooling is CROSS:
        return float(vector([*first.encode(), 256, *second.encode()], 1)[0])
    a, b = (vector([*text.encode(), 256], 8) for text in (first, second))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
async def test_one_with_many(path, client, engine):
    response = await client.post(path, {"text_1": "query", "text_2": ["one", "two"]})
    answer = response.json()
    assert (answer["object"], answer["model"]) == ("list", "fake")
    for index, (data, text) in enumerate(zip(answer["data"], ["one", "two"], strict=True)):
        assert (data["index"], data["object"]) == (index, "score")
        assert data["score"] == pytest.approx(expected(engine, "query", text), rel=1e-5)
    assert answer["usage"]["total_tokens"] > 0


async def test_pair_by_pair(client, engine):
    response = await client.post("/score", {"text_1": ["a", "b"], "text_2": ["c", "d"]})
    scores = [data["score"] for data in response.json()["data"]]
    assert scores == pytest.approx([expected(engine, "a", "c"), expected(engine, "b", "d")], rel=1e-5)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
async def test_rerank(path, client, engine):
    documents = ["zebra", {"text": "query!"}, "quarry", "b"]
    texts = ["zebra", "query!", "quarry", "b"]
    scores = [expected(engine, "query", text) for text in texts]
    order = sorted(range(4), key=lambda i: -scores[i])
    body = {"model": "fake", "query": "query", "documents": documents, "top_n": 3}
    answer = (await client.post(path, body)).json()
    assert [result["index"] for result in answer["results"]] == order[:3]
    assert [r["relevance_score"] for r in answer["results"]] == pytest.approx(
        [scores[i] for i in order[:3]], rel=1e-5
    )
    assert [r["document"]["text"] for r in answer["results"]] == [texts[i] for i in order[:3]]
    assert answer["meta"]["tokens"]["input_tokens"] == answer["usage"]["total_tokens"] > 0
    bare = (await client.post(path, {**body, "return_documents": False, "top_n": None})).json()
    assert len(bare["results"]) == 4
    assert "document" not in bare["results"][0]
    assert len((await client.post(path, {**body, "top_n": 0})).json()["results"]) == 4  # vLLM's word for all


async def test_equal_scores_keep_their_order(client):
    answer = (await client.post("/rerank", {"query": "q", "documents": ["same"] * 5})).json()
    assert [result["index"] for result in answer["results"]] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/score", {"text_1": "x"}, "text_2"),
        ("/score", {"text_1": "x", "text_2": []}, "text_2"),
        ("/score", {"text_1": ["x", "y"], "text_2": ["z"]}, "text_1"),
        ("/rerank", {"query": "x", "documents": []}, "documents"),
        ("/rerank", {"query": "x", "documents": [{"title": "y"}]}, "documents[0]"),
        ("/rerank", {"query": "x", "documents": ["y"], "top_n": -1}, "top_n"),
        ("/rerank", {"query": "x", "documents": ["y"], "rank_fields": ["text"]}, "rank_fields"),
        ("/rerank", {"documents": ["y"]}, "query"),
        ("/rerank", {"query": "x", "documents": ["y" * 100]}, "documents"),
    ],
)
async def test_what_is_refused(path, body, param, client):
    status, error = await client.error(path, body)
    assert status == 400
    assert error["param"].startswith(param)


async def test_the_cohere_client(engine):
    cohere = pytest.importorskip("cohere")
    documents = ["zebra", "query!", "quarry"]
    scores = [expected(engine, "query", text) for text in documents]
    async with serving(engine) as (url, _):
        client = cohere.ClientV2(api_key="none", base_url=url)
        answer = await asyncio.to_thread(
            client.rerank, model="fake", query="query", documents=documents, top_n=2
        )
        older = cohere.Client(api_key="none", base_url=url)
        first = await asyncio.to_thread(older.rerank, model="fake", query="query", documents=documents)
    best = int(np.argmax(scores))
    assert len(answer.results) == 2
    assert answer.results[0].index == first.results[0].index == best
    assert answer.results[0].relevance_score == pytest.approx(scores[best], rel=1e-5)
    assert first.results[0].document.text == documents[best]


async def test_keys_share_no_cache():
    engine = PoolingEngine(EMBED)
    client = Client(build_app(engine, ServerSettings.with_keys(["k"]), engine.served_model_names))
    assert (await client.post("/score", {"text_1": "a", "text_2": "b"})).status_code == 401
    await client.post("/score", {"text_1": "a", "text_2": "b"}, authorization="Bearer k")
    assert engine.asked[-1][3]
