"""The `openai` Python client, unchanged, over real sockets and a scripted engine."""

from __future__ import annotations

import asyncio

import openai
import pytest

from tenon.server.settings import ServerSettings
from tests.server.fake_engine import FakeEngine, echo_script
from tests.server.serving import serving

MESSAGES = [{"role": "user", "content": "hi"}]
TEXT = echo_script("<user>hi\n<assistant>", 0)


@pytest.fixture
async def server(engine):
    async with serving(engine, ServerSettings.with_keys(["key"])) as (url, _):
        yield url + "/v1"


@pytest.fixture
async def api(server):
    async with openai.AsyncOpenAI(base_url=server, api_key="key", max_retries=0) as client:
        yield client


async def test_chat(api):
    answer = await api.chat.completions.create(model="fake", messages=MESSAGES)
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens_details.cached_tokens == answer.usage.prompt_tokens // 2


async def test_chat_stream(api):
    stream = await api.chat.completions.create(
        model="fake", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
    assert chunks[-1].usage.completion_tokens == len(TEXT.encode()) + 1


async def test_chat_stream_helper(api):
    """The client's own accumulation of a stream agrees with the whole answer."""
    whole = await api.chat.completions.create(
        model="fake", messages=MESSAGES, logprobs=True, top_logprobs=2, n=2
    )
    async with api.chat.completions.stream(
        model="fake", messages=MESSAGES, logprobs=True, top_logprobs=2, n=2
    ) as stream:
        final = await stream.get_final_completion()
    for one, other in zip(whole.choices, final.choices, strict=True):
        assert one.message.content == other.message.content
        assert one.logprobs.content == other.logprobs.content
        assert one.finish_reason == other.finish_reason


async def test_completion_with_choices_and_logprobs(api):
    answer = await api.completions.create(model="fake", prompt="ab", n=2, logprobs=1, max_tokens=4)
    assert [c.index for c in answer.choices] == [0, 1]
    assert len(answer.choices[0].logprobs.tokens) == 4
    stream = await api.completions.create(model="fake", prompt="ab", n=2, max_tokens=4, stream=True)
    texts = ["", ""]
    async for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [c.text for c in answer.choices]


async def test_extra_body(api, engine):
    await api.chat.completions.create(
        model="fake", messages=MESSAGES, extra_body={"top_k": 3, "min_p": 0.1, "ignore_eos": True}
    )
    assert engine.requests[0].params.top_k == 3


async def test_models(api):
    assert [m.id async for m in api.models.list()] == ["fake", "org/alias"]
    assert (await api.models.retrieve("org/alias")).owned_by == "tenon"


async def test_errors(api, server, engine):
    with pytest.raises(openai.BadRequestError) as caught:
        await api.chat.completions.create(model="fake", messages=MESSAGES, temperature=-1)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.NotFoundError) as caught:
        await api.chat.completions.create(model="nope", messages=MESSAGES)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        await openai.AsyncOpenAI(base_url=server, api_key="bad").models.list()
    engine.die_after = 2
    with pytest.raises(openai.APIError, match="died"):
        async for _ in await api.chat.completions.create(model="fake", messages=MESSAGES, stream=True):
            pass


async def test_synchronous_client(server):
    def work() -> str:
        with openai.OpenAI(base_url=server, api_key="key") as client:
            stream = client.chat.completions.create(model="fake", messages=MESSAGES, stream=True)
            return "".join(c.choices[0].delta.content or "" for c in stream)

    assert await asyncio.to_thread(work) == TEXT


async def test_many_streams_at_once():
    engine = FakeEngine(delay=0.001)
    async with serving(engine) as (url, _), openai.AsyncOpenAI(base_url=url + "/v1", api_key="x") as api:

        async def one(i: int) -> None:
            stream = await api.completions.create(model="fake", prompt=f"p{i}", max_tokens=1000, stream=True)
            text = ""
            async for chunk in stream:
                text += chunk.choices[0].text
            assert text == echo_script(f"p{i}", 0)

        await asyncio.gather(*map(one, range(100)))
    assert engine.running == 0
