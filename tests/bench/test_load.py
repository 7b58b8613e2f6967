import asyncio
import dataclasses

import pytest

from tenon.bench import load
from tenon.bench.load import Load
from tenon.bench.prompts import PromptShape, text_prompts, token_prompts
from tenon.util.http import Target
from tests.openai_server import FakeServer, running


def plan(server, **changes):
    prompts = token_prompts(8, PromptShape(12), 1000, seed=1)
    base = Load(target=Target.parse(server.url), model="fake", prompts=prompts, output_len=5)
    return dataclasses.replace(base, **changes)


def measure(server, **changes):
    samples, duration = asyncio.run(load.run(plan(server, **changes)))
    return load.figures(samples, duration)


@pytest.mark.parametrize("chat", [False, True])
def test_tokens_and_times_are_counted(chat):
    prompts = text_prompts(8, PromptShape(12), seed=1) if chat else token_prompts(8, PromptShape(12), 1000, 1)
    with running(FakeServer(gap=0.01)) as server:
        result = measure(server, prompts=prompts, chat=chat, ignore_eos=True)
    assert result["completed"] == 8
    assert result["failed"] == 0
    assert result["prompt_tokens"] == 96
    assert result["cached_tokens"] == 24
    assert result["output_tokens"] == 40
    assert 8 <= result["ttft_ms"] < 1000
    assert 8 <= result["tpot_ms"] < 500
    assert result["e2e_ms"] >= result["ttft_ms"] + 4 * 8
    assert result["p99_itl_ms"] >= result["median_itl_ms"] >= 8
    body = server.bodies[0]
    assert body["ignore_eos"] is True
    assert body["stream_options"] == {"include_usage": True}


def test_concurrency_is_bounded():
    with running(FakeServer(gap=0.005)) as server:
        measure(server, max_concurrency=2)
        assert server.most_at_once == 2
        assert server.connections == 2


def test_a_request_rate_spreads_requests():
    with running() as server:
        slow = measure(server, request_rate=40.0)
    assert 0.02 < slow["duration_s"] < 5


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("status", "status 503"),
        ("cut", "broken answer"),
        ("error", "error in the stream"),
        ("hang", "no end after"),
    ],
)
def test_failures_are_counted_and_explained(fault, words):
    with running(FakeServer(gap=0.001, fault=fault)) as server:
        result = measure(server, timeout_s=1.0)
    assert (result["completed"], result["failed"]) == (4, 4)
    assert all(words in message for message in result["errors"])
    assert result["output_tokens"] == 20


def test_nobody_there():
    with running() as server:
        pass
    result = measure(server)
    assert result["failed"] == 8
    assert result["ttft_ms"] is None
