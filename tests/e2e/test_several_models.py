"""Several models behind one `tenon serve`: engine processes that come, go, fail and are killed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e.conftest import RealServer, engines, start, stop

ORACLE = 'model = "oracle"\nload_format = "oracle"\nkv_cache_memory = "128KiB"\n'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RealServer]:
    """Two models of which one is loaded at a time, and one whose file is no model."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    file = tmp_path / "models.toml"
    file.write_text(
        f"[first]\n{ORACLE}max_model_len = 1024\n\n[second]\n{ORACLE}max_model_len = 512\n\n"
        f'[broken]\nmodel = "{broken}"\nkv_cache_memory = "1MiB"\n'
    )
    server = start("--models-file", str(file), "--max-loaded-models", "1")
    yield server
    assert stop(server) == 0


def complete(api: openai.OpenAI, model: str) -> str:
    answer = api.completions.create(model=model, prompt="abc", max_tokens=12, temperature=0)
    assert answer.model == model
    return answer.choices[0].text


def test_models_by_name(server: RealServer):
    assert "first is ready" in server.greeting
    assert "second" in server.greeting
    with openai.OpenAI(base_url=server.api, api_key="none", max_retries=0) as api:
        text = complete(api, "first")
        before = engines(server.process.pid)
        assert len(before) == 1
        assert complete(api, "second") == text  # the same model under another name
        after = engines(server.process.pid)
        assert len(after) == 1
        assert after != before
        cards = {card.id: card for card in api.models.list()}
        assert [cards[name].state for name in ("first", "second")] == ["unloaded", "loaded"]
        assert [cards[name].max_model_len for name in ("first", "second")] == [1024, 512]

        with pytest.raises(openai.InternalServerError) as caught:
            complete(api, "broken")
        assert caught.value.status_code == 503
        assert caught.value.code == "model_failed"
        assert "broken.gguf" in caught.value.message

        assert complete(api, "second") == text
        (engine,) = engines(server.process.pid)
        os.kill(engine.pid, signal.SIGKILL)
        engine.wait(10)
        assert complete(api, "second") == text  # it is there again
        os.kill(engines(server.process.pid)[0].pid, signal.SIGKILL)
        assert complete(api, "first") == text
        metrics = httpx.get(server.url + "/metrics").text
        assert 'tenon:generation_tokens_total{model_name="first"} 24.0' in metrics
        assert 'tenon:model_loaded{model_name="first"} 1.0' in metrics
        assert httpx.get(server.url + "/ready").status_code == 200


def test_a_model_that_answers_beside_one_that_embeds(model: str, minilm: Path, tmp_path: Path):
    """With room for one of them; also in a batch."""
    file = tmp_path / "models.toml"
    file.write_text(
        f'[chat]\nmodel = "{model}"\nmax_model_len = 512\nkv_cache_memory = "32MiB"\n'
        f'[embed]\nmodel = "{minilm}"\n'
    )
    server = start("--models-file", str(file), "--max-loaded-models", "1")
    try:
        with openai.OpenAI(base_url=server.api, api_key="none", max_retries=0) as api:
            messages = [{"role": "user", "content": "Hello"}]
            asked = {"model": "chat", "messages": messages, "temperature": 0, "max_tokens": 5}
            answer = api.chat.completions.create(**asked).choices[0].message.content
            vector = api.embeddings.create(model="embed", input="Hello").data[0].embedding
            assert len(vector) == 384
            assert api.chat.completions.create(**asked).choices[0].message.content == answer
            with pytest.raises(openai.BadRequestError):
                api.embeddings.create(model="chat", input="Hello")
            lines = [
                {"custom_id": str(i), "method": "POST", "url": "/v1/embeddings", "body": body}
                for i, body in enumerate(
                    [{"model": "embed", "input": "Hello"}, {"model": "chat", "input": "Hello"}]
                )
            ]
            data = "\n".join(map(json.dumps, lines)).encode()
            uploaded = api.files.create(file=("in.jsonl", data), purpose="batch")
            batch = api.batches.create(
                input_file_id=uploaded.id, endpoint="/v1/embeddings", completion_window="1h"
            )
            while (batch := api.batches.retrieve(batch.id)).status != "completed":
                assert batch.status in ("validating", "in_progress", "finalizing")
                time.sleep(0.05)
            assert batch.request_counts.model_dump() == {"total": 2, "completed": 1, "failed": 1}
            result = json.loads(api.files.content(batch.output_file_id).text)
            assert result["response"]["body"]["data"][0]["embedding"] == pytest.approx(vector, abs=1e-6)
    finally:
        assert stop(server) == 0
