"""The default model through HTTP, with the `openai` client as users have it."""

from __future__ import annotations

import asyncio
import math
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from tests.e2e.conftest import RealServer, start, stop

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
WORDS = Path(__file__).read_text().split()


@pytest.fixture
def api(real: RealServer):
    with openai.OpenAI(base_url=real.api, api_key="none", max_retries=0) as client:
        yield client


def test_chat_makes_sense(api):
    answer = api.chat.completions.create(model="smollm2", messages=FRANCE, temperature=0, max_tokens=40)
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens < 40


def test_stream_equals_whole(api):
    fields = {"model": "smollm2", "messages": FRANCE, "seed": 11, "max_tokens": 24, "n": 3, "logprobs": True}
    whole = api.chat.completions.create(**fields, top_logprobs=2)
    texts = dict.fromkeys(range(3), "")
    logprobs: dict[int, list] = {i: [] for i in range(3)}
    for chunk in api.chat.completions.create(**fields, top_logprobs=2, stream=True):
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.content or ""
        if choice.logprobs:
            logprobs[choice.index] += choice.logprobs.content
    assert len(set(texts.values())) > 1, "choices of one request should differ"
    for choice in whole.choices:
        assert choice.message.content == texts[choice.index]
        assert choice.logprobs.content == logprobs[choice.index]


def test_logprobs_are_of_a_distribution(api):
    answer = api.completions.create(
        model="smollm2", prompt="The sky is", max_tokens=5, temperature=0, logprobs=5
    )
    logprobs = answer.choices[0].logprobs
    for token, value, top in zip(
        logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True
    ):
        assert sum(map(math.exp, top.values())) <= 1.0001
        assert max(top, key=top.get) == token
        assert top[token] == value
    assert "".join(logprobs.tokens) == answer.choices[0].text


def test_echo_scores_the_prompt(api):
    prompt = "Paris is the capital of France"
    fields = {"model": "smollm2", "prompt": prompt, "echo": True, "logprobs": 1}
    scored = api.completions.create(**fields, max_tokens=0).choices[0]
    assert scored.text == prompt
    assert scored.logprobs.token_logprobs[0] is None
    assert all(value < 0 for value in scored.logprobs.token_logprobs[1:])
    again = api.completions.create(**fields, max_tokens=3, temperature=0).choices[0]
    assert again.text.startswith(prompt)
    assert again.logprobs.token_logprobs[: len(scored.logprobs.tokens)] == scored.logprobs.token_logprobs


def test_greedy_equals_top_k_one_and_seeds_repeat(api):
    fields = {"model": "smollm2", "prompt": "Once upon a time", "max_tokens": 12}
    greedy = api.completions.create(**fields, temperature=0).choices[0].text
    assert api.completions.create(**fields, extra_body={"top_k": 1}).choices[0].text == greedy
    seeded = [api.completions.create(**fields, seed=5).choices[0].text for _ in range(2)]
    assert seeded[0] == seeded[1]


def test_limits_and_stops(api):
    fields = {"model": "smollm2", "prompt": "1 2 3 4 5 6", "temperature": 0}
    answer = api.completions.create(**fields, max_tokens=7, extra_body={"ignore_eos": True})
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 7)
    stopped = api.completions.create(**fields, max_tokens=30, stop=["9"]).choices[0]
    assert stopped.finish_reason == "stop"
    assert "9" not in stopped.text
    kept = api.completions.create(
        **fields, max_tokens=30, stop=["9"], extra_body={"include_stop_str_in_output": True}
    )
    assert kept.choices[0].text == stopped.text + "9"
    banned = api.completions.create(**fields, max_tokens=5, logprobs=0)
    token = banned.choices[0].logprobs.tokens[0]
    ids = api.completions.create(**fields, max_tokens=1, extra_body={"return_token_ids": True})
    bias = {str(ids.choices[0].token_ids[0]): -100}
    assert api.completions.create(**fields, max_tokens=1, logit_bias=bias).choices[0].text != token


def test_token_ids_as_prompt(api):
    fields = {"model": "smollm2", "max_tokens": 8, "temperature": 0}
    answer = api.completions.create(**fields, prompt="Hello world", extra_body={"return_token_ids": True})
    ids = answer.choices[0].prompt_token_ids
    assert api.completions.create(**fields, prompt=ids).choices[0].text == answer.choices[0].text
    several = api.completions.create(**fields, prompt=[ids, ids])
    assert [c.text for c in several.choices] == [answer.choices[0].text] * 2


def test_prefix_cache_is_reported(api, real):
    prompt = " ".join(WORDS[:200])
    fields = {"model": "smollm2", "prompt": prompt, "max_tokens": 8, "temperature": 0}
    cold, warm = (api.completions.create(**fields) for _ in range(2))
    assert warm.usage.prompt_tokens_details.cached_tokens >= 32
    assert warm.choices[0].text == cold.choices[0].text
    assert real.metric("prefix_cache_hits_total") >= 32


def test_errors(api, real):
    with pytest.raises(openai.BadRequestError) as caught:
        api.chat.completions.create(model="smollm2", messages=FRANCE, top_p=2)
    assert caught.value.param == "top_p"
    with pytest.raises(openai.NotFoundError):
        api.chat.completions.create(model="gpt-5", messages=FRANCE)
    with pytest.raises(openai.BadRequestError) as caught:
        api.completions.create(model="smollm2", prompt="a " * 3000)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as caught:
        api.completions.create(model="smollm2", prompt=[10**6])
    assert caught.value.param == "prompt"
    assert httpx.get(real.url + "/health").status_code == 200


@pytest.mark.parametrize("kind", ["oracle", "real"])
async def test_storm(kind: str, request: pytest.FixtureRequest, seed: int):
    """64 streams at once, a quarter of which vanish: no block stays used, every other answer is what the
    same request gets alone, token for token."""
    server: RealServer = request.getfixturevalue(kind)
    most_words, most_tokens = {"oracle": (120, 20), "real": (40, 8)}[kind]  # a real model takes real time
    rng = random.Random(seed)
    requests = []
    for i in range(64):
        begin = rng.randrange(len(WORDS) - most_words)
        requests.append(
            {
                "model": "smollm2",
                "prompt": " ".join(WORDS[begin : begin + rng.randint(1, most_words)]),
                "max_tokens": rng.randint(2, most_tokens),
                "seed": i,
                "temperature": rng.choice([0.0, 0.8, 1.3]),
                "logprobs": 0,
                "extra_body": {"return_token_ids": True, "ignore_eos": True},
            }
        )
    gone = set(rng.sample(range(64), 16))
    after = {i: rng.randint(0, 3) for i in gone}

    async with openai.AsyncOpenAI(base_url=server.api, api_key="none", max_retries=0, timeout=120) as api:

        async def streamed(i: int) -> tuple[list[int], list[float], str]:
            stream = await api.completions.create(**requests[i], stream=True)
            ids, logprobs, text = [], [], ""
            count = 0
            async for chunk in stream:
                if count == after.get(i):
                    await stream.response.aclose()
                    break
                count += 1
                if not chunk.choices:
                    continue
                choice = chunk.choices[0]
                ids += getattr(choice, "token_ids", None) or []
                logprobs += choice.logprobs.token_logprobs if choice.logprobs else []
                text += choice.text
            return ids, logprobs, text

        answers = await asyncio.gather(*(streamed(i) for i in range(64)))
        deadline = time.monotonic() + 10
        while server.metric("kv_blocks_used") or server.metric("num_requests_running"):
            assert time.monotonic() < deadline, "blocks are still in use"
            await asyncio.sleep(0.1)
        survivors = sorted(set(range(64)) - gone)
        for i in survivors:
            alone = (await api.completions.create(**requests[i])).choices[0]
            ids, logprobs, text = answers[i]
            assert len(ids) == requests[i]["max_tokens"]
            assert ids == alone.token_ids, i
            assert logprobs == alone.logprobs.token_logprobs, i
            assert text == alone.text, i
    assert server.metric("kv_blocks_used") == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_behind(number: int):
    sockets_before = _unix_sockets()
    server = start("--load-format", "oracle")
    family = [
        server.process.pid,
        *(p.pid for p in psutil.Process(server.process.pid).children(recursive=True)),
    ]
    assert len(family) >= 2, "the engine should be a process of its own"
    body = {"prompt": "Hello", "max_tokens": 900, "stream": True, "ignore_eos": True}
    with httpx.stream("POST", server.url + "/v1/completions", json=body) as response:
        next(response.iter_lines())
    assert stop(server, number) == 0
    assert re.search(r"INFO tenon\.server: stopping; ", log := server.log)
    assert log.endswith(" INFO tenon.server: stopped, with status 0\n")
    assert re.search(r"^\d{4}-\S+ \S+ INFO tenon\.engine\.loader: ", log, re.MULTILINE)
    assert not [pid for pid in family if _runs(pid)]
    assert _unix_sockets() <= sockets_before
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url + "/live")


def test_a_priority_needs_its_policy(oracle: RealServer):
    url = oracle.api + "/completions"
    answer = httpx.post(url, json={"prompt": "Hello", "priority": 1})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "priority")
    assert httpx.post(url, json={"prompt": "Hello", "priority": 0}).status_code == 200


def test_port_in_use_is_one_line(oracle: RealServer):
    port = oracle.url.rpartition(":")[2]
    command = [sys.executable, "-m", "tenon", "serve", "--load-format", "oracle", "--port", port]
    out = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert out.returncode != 0
    assert f"port {port}" in out.stderr
    assert len(out.stderr.strip().splitlines()) == 1


def _runs(pid: int) -> bool:
    """Not so of one that has ended and waits for its parent, the system's first process by now."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _unix_sockets() -> set[str]:
    """Paths of Unix sockets in the file system that tenon's processes listen on."""
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    return {line.split()[7] for line in lines if len(line.split()) > 7 and "tenon" in line.split()[7]}
