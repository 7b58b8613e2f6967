"""A tool call by the default model: a template that shows tools, and the `openai` client."""

from __future__ import annotations

import json

import jsonschema
import openai
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState

CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]


def test_a_real_tool_call(tooled):
    with openai.OpenAI(base_url=tooled.api, api_key="none", max_retries=0) as api:
        fields = {"model": "m", "messages": WEATHER, "tools": [TOOL], "temperature": 0, "max_tokens": 60}
        whole = api.chat.completions.create(**fields).choices[0]
        state, fragments = ChatCompletionStreamState(), []
        for chunk in api.chat.completions.create(**fields, stream=True):
            state.handle_chunk(chunk)
            for choice in chunk.choices:
                fragments += [call.function.arguments for call in choice.delta.tool_calls or []]
        streamed = state.get_final_completion().choices[0]
        plain = api.chat.completions.create(**fields | {"tool_choice": "none"}).choices[0]
    for choice in (whole, streamed):
        assert choice.finish_reason == "tool_calls"
        (call,) = choice.message.tool_calls
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert "".join(fragments) == whole.message.tool_calls[0].function.arguments
    assert len([fragment for fragment in fragments if fragment]) > 3
    assert not plain.message.tool_calls


CLOCK_TIME = {"type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"]}
NOTE_TEXT = {
    "type": "object",
    "properties": {"text": {"type": "string", "maxLength": 40}},
    "required": ["text"],
}
SCHEMAS = {"get_time": CLOCK_TIME, "take_note": NOTE_TEXT}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": schema}} for name, schema in SCHEMAS.items()
]
STORY = [{"role": "user", "content": "Tell me a story."}]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_time"}}])
def test_calls_that_are_forced(tooled, choice):
    """At a temperature at which the model would write anything else."""
    fields = {"model": "m", "messages": STORY, "tools": TOOLS, "tool_choice": choice, "temperature": 3}
    fields |= {"max_tokens": 250, "n": 4, "seed": 1, "parallel_tool_calls": False}
    with openai.OpenAI(base_url=tooled.api, api_key="none", max_retries=0) as api:
        whole = api.chat.completions.create(**fields)
        state = ChatCompletionStreamState()
        for chunk in api.chat.completions.create(**fields, stream=True):
            state.handle_chunk(chunk)
        streamed = state.get_final_completion()
    for one, other in zip(whole.choices, streamed.choices, strict=True):
        assert one.finish_reason == other.finish_reason == "tool_calls"
        assert not one.message.content
        (call,) = one.message.tool_calls
        (same,) = other.message.tool_calls
        assert (same.function.name, same.function.arguments) == (call.function.name, call.function.arguments)
        assert choice == "required" or call.function.name == "get_time"
        jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])
