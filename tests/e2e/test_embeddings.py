"""The whole way, from the openai client to all-MiniLM-L6-v2 in an engine process and back."""

from __future__ import annotations

import numpy as np
import pytest

from tenon import LLM
from tenon.config import EngineArgs
from tenon.engine.async_engine import AsyncEngine
from tests.server.serving import serving

TEXTS = ["The cat sat on the mat.", "A feline rested on a rug.", "Interest rates rose again."]


async def test_embeddings_and_scores(minilm):
    import openai

    engine = AsyncEngine(EngineArgs(model=str(minilm), served_model_name="minilm").resolve())
    await engine.start()
    try:
        async with serving(engine) as (url, _):
            client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none")
            answer = await client.embeddings.create(model="minilm", input=TEXTS)
            with pytest.raises(openai.BadRequestError, match="does not generate"):
                await client.chat.completions.create(
                    model="minilm", messages=[{"role": "user", "content": "x"}]
                )
            with pytest.raises(openai.BadRequestError, match="256"):
                await client.embeddings.create(model="minilm", input="long " * 300)
            ranked = await client.post(
                "/rerank", body={"query": TEXTS[0], "documents": TEXTS[1:]}, cast_to=dict[str, object]
            )
    finally:
        await engine.stop()
    vectors = np.array([data.embedding for data in answer.data], np.float32)
    here = LLM(str(minilm)).embed(TEXTS)
    np.testing.assert_array_equal(vectors, np.stack([output.outputs.embedding for output in here]))
    assert [result["index"] for result in ranked["results"]] == [0, 1]
    assert ranked["results"][0]["relevance_score"] == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-6)
