"""The default model through the Responses API, with the `openai` client."""

from __future__ import annotations

import json

import openai
import pytest

FRANCE = "What is the capital of France?"
TOOL = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}

CITY_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
    "additionalProperties": False,
}
CITY = {"format": {"type": "json_schema", "name": "city", "schema": CITY_SCHEMA}}


@pytest.fixture
def api(real):
    with openai.OpenAI(base_url=real.api, api_key="none", max_retries=0) as client:
        yield client


def final(stream):
    """The last response of a stream, and the text that its deltas spell."""
    text, last = "", None
    for number, event in enumerate(stream):
        assert event.sequence_number == number
        text += event.delta if event.type == "response.output_text.delta" else ""
        last = event
    return last.response, text


def test_stream_equals_whole(api):
    fields = {"model": "smollm2", "input": FRANCE, "temperature": 0, "max_output_tokens": 40}
    fields |= {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    whole = api.responses.create(**fields)
    streamed, text = final(api.responses.create(**fields, stream=True))
    assert len(whole.output_text) > 10
    assert whole.output_text == streamed.output_text == text
    assert whole.output[0].content[0].logprobs == streamed.output[0].content[0].logprobs
    assert "".join(p.token for p in whole.output[0].content[0].logprobs).startswith(text)
    assert whole.usage.output_tokens == streamed.usage.output_tokens
    assert whole.status == streamed.status


def test_stream_helper(api):
    fields = {"model": "smollm2", "input": "The capital of France, as JSON.", "temperature": 0, "text": CITY}
    with api.responses.stream(**fields) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        whole = stream.get_final_response()
    assert (whole.status, whole.output_text) == ("completed", text)


def test_a_conversation_by_id(api):
    fields = {"model": "smollm2", "temperature": 0, "max_output_tokens": 20}
    first = api.responses.create(input="My name is Ada.", **fields)
    second = api.responses.create(input="What is my name?", previous_response_id=first.id, **fields)
    by_hand = api.responses.create(
        input=[
            {"role": "user", "content": "My name is Ada."},
            {"role": "assistant", "content": first.output_text},
            {"role": "user", "content": "What is my name?"},
        ],
        **fields,
    )
    assert second.output_text == by_hand.output_text
    assert second.usage.input_tokens == by_hand.usage.input_tokens
    assert second.usage.input_tokens_details.cached_tokens > 0
    assert len(api.responses.input_items.list(second.id).data) == 3
    api.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError):
        api.responses.retrieve(second.id)


def test_a_tool_by_id(tooled):
    with openai.OpenAI(base_url=tooled.api, api_key="none", max_retries=0) as api:
        fields = {"model": "m", "temperature": 0, "max_output_tokens": 60, "tools": [TOOL]}
        question = "What is the weather in Paris?"
        first = api.responses.create(input=question, **fields)
        streamed, _ = final(api.responses.create(input=question, stream=True, **fields))
        for response in (first, streamed):
            (call,) = [item for item in response.output if item.type == "function_call"]
            assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "It is sunny."}
        answers = [
            api.responses.create(input=[result], previous_response_id=response.id, **fields)
            for response in (first, streamed)
        ]
        assert answers[0].output
        assert answers[0].output_text == answers[1].output_text
        assert answers[0].usage.input_tokens > first.usage.input_tokens


def test_background(api):
    fields = {"model": "smollm2", "input": FRANCE, "temperature": 0, "max_output_tokens": 40}
    started = api.responses.create(**fields, background=True)
    text = "".join(
        event.delta
        for event in api.responses.retrieve(started.id, stream=True)
        if event.type == "response.output_text.delta"
    )
    over = api.responses.retrieve(started.id)
    assert over.status in ("completed", "incomplete")
    assert over.output_text == text == api.responses.create(**fields).output_text
    started = api.responses.create(
        model="smollm2", input=FRANCE, background=True, extra_body={"stop": ["\0"]}
    )
    assert api.responses.cancel(started.id).status in ("cancelled", "completed", "incomplete")


def test_structured_output(api):
    fields = {
        "model": "smollm2",
        "input": "The capital of France, as JSON.",
        "temperature": 0,
        "max_output_tokens": 60,
        "text": CITY,
    }
    whole = api.responses.create(**fields)
    assert list(json.loads(whole.output_text)) == ["city"]
    assert final(api.responses.create(**fields, stream=True))[1] == whole.output_text


def test_errors(api):
    for fields, param in (
        ({"temperature": -1}, "temperature"),
        ({"max_output_tokens": 5000}, "max_output_tokens"),
        ({"input": [{"type": "nope"}]}, "input[0].type"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            api.responses.create(**{"model": "smollm2", "input": FRANCE} | fields)
        assert caught.value.param == param
