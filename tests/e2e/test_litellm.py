"""The default model through LiteLLM, by each of the protocols that it speaks."""

from __future__ import annotations

import json
import os

import pytest

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else its import asks the network for prices

import litellm

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}


def target(server, protocol: str, model: str) -> dict:
    base = server.url if protocol == "anthropic" else server.api
    return {
        "model": f"{protocol}/{model}",
        "api_base": base,
        "api_key": "none",
        "temperature": 0,
        "num_retries": 0,
    }


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_stream_equals_whole(real, protocol):
    fields = {**target(real, protocol, "smollm2"), "messages": FRANCE, "max_tokens": 40}
    whole = litellm.completion(**fields)
    pieces = list(litellm.completion(**fields, stream=True))
    streamed = litellm.stream_chunk_builder(pieces, messages=FRANCE)
    assert streamed.choices[0].message.content == whole.choices[0].message.content
    assert streamed.choices[0].finish_reason == whole.choices[0].finish_reason
    assert len(pieces) > 3


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_a_tool(tooled, protocol):
    fields = {**target(tooled, protocol, "m"), "messages": WEATHER, "tools": [TOOL], "max_tokens": 60}
    whole = litellm.completion(**fields)
    streamed = litellm.stream_chunk_builder(list(litellm.completion(**fields, stream=True)), messages=WEATHER)
    for answer in (whole, streamed):
        (call,) = answer.choices[0].message.tool_calls
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments) == {"city": "Paris"}
        assert answer.choices[0].finish_reason == "tool_calls"


def test_responses(real):
    fields = {**target(real, "openai", "smollm2"), "input": FRANCE[0]["content"], "max_output_tokens": 40}
    whole = litellm.responses(**fields)
    text = "".join(
        event.delta
        for event in litellm.responses(**fields, stream=True)
        if event.type == "response.output_text.delta"
    )
    assert whole.output[0].content[0].text == text


def test_text_completion(real):
    fields = target(real, "text-completion-openai", "smollm2")
    answer = litellm.text_completion(**fields, prompt="The sky is", max_tokens=3)
    assert answer.choices[0].text


def test_errors(real):
    with pytest.raises(litellm.BadRequestError, match="top_p"):
        litellm.completion(**target(real, "openai", "smollm2"), messages=FRANCE, top_p=2)
