"""The batch API with the `openai` client; a server that is killed in the middle, and restarted."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import openai
import pytest

from tests.e2e.conftest import RealServer, start, stop

ORACLE = ("--load-format", "oracle", "--kv-cache-memory", "512KiB", "--max-model-len", "512")
TEXT, CHAT = "/v1/completions", "/v1/chat/completions"


def client(server: RealServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.api, api_key="none", max_retries=0)


def lines(count: int, url: str = TEXT) -> bytes:
    bodies = {
        TEXT: lambda i: {"prompt": f"line {i}", "max_tokens": 24, "seed": i},
        CHAT: lambda i: {"messages": [{"role": "user", "content": f"{i}"}], "max_tokens": 8, "seed": i},
    }
    return b"".join(
        json.dumps({"custom_id": f"r{i}", "method": "POST", "url": url, "body": bodies[url](i)}).encode()
        + b"\n"
        for i in range(count)
    )


def submit(api: openai.OpenAI, data: bytes, url: str = TEXT):
    file = api.files.create(file=("in.jsonl", data), purpose="batch")
    return api.batches.create(input_file_id=file.id, endpoint=url, completion_window="24h")


def ended(api: openai.OpenAI, batch):
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.05)
        batch = api.batches.retrieve(batch.id)
    return batch


def outputs(api: openai.OpenAI, batch) -> dict[str, dict]:
    found = [json.loads(line) for line in api.files.content(batch.output_file_id).text.splitlines()]
    assert len({r["custom_id"] for r in found}) == len(found), "a line came twice"
    return {r["custom_id"]: r["response"]["body"] for r in found}


@pytest.mark.parametrize("kills", [1, 3])
def test_killed_in_the_middle(tmp_path: Path, kills: int):
    """SIGKILL while a batch runs: the next server completes it, with each line once."""
    count = 600
    arguments = (*ORACLE, "--data-dir", str(tmp_path / "data"), "--batch-concurrency", "4")
    server = start(*arguments)
    batch_id, seen = None, 0
    for _ in range(kills):
        with client(server) as api:
            batch = api.batches.retrieve(batch_id) if batch_id else submit(api, lines(count))
            batch_id = batch.id
            while (done := api.batches.retrieve(batch_id).request_counts.completed) <= seen + 20:
                assert done < count, "too fast to be killed in the middle"
                time.sleep(0.01)
            seen = done
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(10)
        server = start(*arguments)
        with client(server) as api:
            batch = api.batches.retrieve(batch_id)
            assert batch.status == "in_progress"
            assert seen <= batch.request_counts.completed < count
    with client(server) as api:
        batch = ended(api, batch)
        assert batch.status == "completed"
        assert batch.request_counts.completed == count
        answers = outputs(api, batch)
        assert list(answers) == [f"r{i}" for i in range(count)]
        for i in (0, count // 2, count - 1):  # what HTTP answers
            direct = api.completions.create(model="smollm2", prompt=f"line {i}", max_tokens=24, seed=i)
            assert answers[f"r{i}"]["choices"][0]["text"] == direct.choices[0].text
    assert stop(server) == 0


def test_a_restart_in_good_order(tmp_path: Path):
    arguments = (*ORACLE, "--data-dir", str(tmp_path), "--batch-concurrency", "2")
    server = start(*arguments)
    with client(server) as api:
        batch = submit(api, lines(400, CHAT), CHAT)
        while api.batches.retrieve(batch.id).request_counts.completed < 10:
            time.sleep(0.01)
    assert stop(server) == 0  # does not wait for the rest
    server = start(*arguments)
    with client(server) as api:
        batch = ended(api, batch)
        assert batch.request_counts.model_dump() == {"total": 400, "completed": 400, "failed": 0}
        assert len(outputs(api, batch)) == 400
        api.files.delete(batch.output_file_id)
        assert [f.id for f in api.files.list()] == [batch.input_file_id]
    assert stop(server) == 0


def test_the_default_model(real: RealServer):
    """A batch of the real model, with requests beside it."""
    with client(real) as api:
        batch = submit(api, lines(12, CHAT), CHAT)
        beside = api.chat.completions.create(
            model="smollm2", messages=[{"role": "user", "content": "3"}], max_tokens=8, seed=3
        )
        batch = ended(api, batch)
        assert batch.request_counts.completed == 12
        answers = outputs(api, batch)
        assert answers["r3"]["choices"][0]["message"] == beside.choices[0].message.model_dump(
            exclude_none=True
        )
        for i in (3, 11):
            direct = api.chat.completions.create(
                model="smollm2", messages=[{"role": "user", "content": f"{i}"}], max_tokens=8, seed=i
            )
            assert answers[f"r{i}"]["choices"][0]["message"]["content"] == direct.choices[0].message.content
