"""The default model through LangChain."""

from __future__ import annotations

import pytest
from langchain_openai import ChatOpenAI

FRANCE = "What is the capital of France?"


CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}


def chat(server, model: str, **fields) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=server.api,
        api_key="none",
        model=model,
        temperature=0,
        max_tokens=60,
        max_retries=0,
        **fields,
    )


@pytest.mark.parametrize("responses", [False, True])
def test_stream_equals_whole(real, responses):
    model = chat(real, "smollm2", use_responses_api=responses)
    whole = model.invoke(FRANCE)
    pieces = list(model.stream(FRANCE))
    assert "".join(piece.text for piece in pieces) == whole.text
    assert len(pieces) > 3
    assert whole.usage_metadata["output_tokens"] > 3


async def test_several_at_once(real):
    model = chat(real, "smollm2")
    answers = await model.abatch([FRANCE] * 4)
    assert len({answer.text for answer in answers}) == 1


@pytest.mark.parametrize("responses", [False, True])
def test_a_tool(tooled, responses):
    model = chat(tooled, "m", use_responses_api=responses).bind_tools([TOOL])
    question = "What is the weather in Paris?"
    whole = model.invoke(question)
    streamed = None
    for piece in model.stream(question):
        streamed = piece if streamed is None else streamed + piece
    for message in (whole, streamed):
        (call,) = message.tool_calls
        assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
    call = whole.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "It is sunny."}
    answer = model.invoke([{"role": "user", "content": question}, whole, result])
    assert answer.usage_metadata["input_tokens"] > whole.usage_metadata["input_tokens"]
