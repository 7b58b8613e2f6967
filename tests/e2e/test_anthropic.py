"""The default model through the Messages API, with the `anthropic` client."""

from __future__ import annotations

import json

import anthropic
import pytest

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
TOOL = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
GREEDY = {"temperature": 0}


@pytest.fixture
def api(real):
    with anthropic.Anthropic(base_url=real.url, api_key="none", max_retries=0) as client:
        yield client


def test_stream_equals_whole(api):
    fields = {
        "model": "smollm2",
        "messages": FRANCE,
        "max_tokens": 40,
        "system": "You are a helpful assistant.",
    }
    whole = api.messages.create(**fields, extra_body=GREEDY)
    with api.messages.stream(**fields, extra_body=GREEDY) as stream:
        text = "".join(stream.text_stream)
        streamed = stream.get_final_message()
    assert len(text) > 10
    assert [block.text for block in whole.content] == [block.text for block in streamed.content] == [text]
    assert whole.stop_reason == streamed.stop_reason
    assert whole.usage.output_tokens == streamed.usage.output_tokens
    counted = api.messages.count_tokens(**{name: fields[name] for name in ("model", "messages", "system")})
    for usage in (whole.usage, streamed.usage):
        assert usage.input_tokens + usage.cache_read_input_tokens == counted.input_tokens


def test_the_same_model_as_through_chat(api, real):
    import openai

    fields = {"model": "smollm2", "messages": FRANCE, "max_tokens": 40}
    with openai.OpenAI(base_url=real.api, api_key="none") as other:
        chat = other.chat.completions.create(**fields, **GREEDY)
    message = api.messages.create(**fields, extra_body=GREEDY)
    assert message.content[0].text == chat.choices[0].message.content
    assert message.usage.output_tokens == chat.usage.completion_tokens


def test_stops(api):
    fields = {"model": "smollm2", "messages": FRANCE, "extra_body": GREEDY}
    assert api.messages.create(**fields, max_tokens=3).stop_reason == "max_tokens"
    whole = api.messages.create(**fields, max_tokens=20).content[0].text
    word = whole.split()[3]
    stopped = api.messages.create(**fields, max_tokens=40, stop_sequences=[word])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", word)
    assert stopped.content[0].text == whole[: whole.index(word)]


def test_an_answer_that_has_begun_goes_on(api):
    begun = [*FRANCE, {"role": "assistant", "content": "The capital of France is"}]
    answer = api.messages.create(model="smollm2", messages=begun, max_tokens=8, extra_body=GREEDY)
    assert answer.content[0].text.lstrip().startswith("Paris"), "it did not go on"


def test_a_tool(tooled):
    with anthropic.Anthropic(base_url=tooled.url, api_key="none", max_retries=0) as api:
        ask = {"role": "user", "content": "What is the weather in Paris?"}
        fields = {"model": "m", "max_tokens": 60, "tools": [TOOL], "extra_body": GREEDY}
        whole = api.messages.create(messages=[ask], **fields)
        with api.messages.stream(messages=[ask], **fields) as stream:
            streamed = stream.get_final_message()
        for message in (whole, streamed):
            assert message.stop_reason == "tool_use"
            (call,) = [block for block in message.content if block.type == "tool_use"]
            assert (call.name, call.input) == ("get_weather", {"city": "Paris"})
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "It is sunny."}
        messages = [
            ask,
            {"role": "assistant", "content": whole.content},
            {"role": "user", "content": [result]},
        ]
        answer = api.messages.create(messages=messages, **fields)
        assert answer.content
        assert answer.usage.output_tokens > 0


def test_structured_output(api):
    city = {"type": "string", "maxLength": 20}
    schema = {
        "type": "object",
        "properties": {"city": city},
        "required": ["city"],
        "additionalProperties": False,
    }
    fields = {"model": "smollm2", "max_tokens": 60, "extra_body": GREEDY}
    fields |= {"messages": [{"role": "user", "content": "The capital of France, as JSON."}]}
    fields |= {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
    whole = api.messages.create(**fields)
    assert list(json.loads(whole.content[0].text)) == ["city"]
    with api.messages.stream(**fields) as stream:
        assert stream.get_final_text() == whole.content[0].text


def test_errors(api):
    with pytest.raises(anthropic.BadRequestError) as caught:
        api.messages.create(model="smollm2", messages=[], max_tokens=5)
    assert caught.value.body["error"]["type"] == "invalid_request_error"
    with pytest.raises(anthropic.NotFoundError):
        api.messages.create(model="claude", messages=FRANCE, max_tokens=5)
