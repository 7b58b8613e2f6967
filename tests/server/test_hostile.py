"""Good requests of every protocol with parts replaced by what does not belong there: never a fault."""

from __future__ import annotations

import copy
import random

import pytest

from tests.server.test_output_format import TEMPLATE, client_of, scripted

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA}
GOOD = {
    "/v1/chat/completions": {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": "b", "reasoning": "r", "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]},
            {"role": "tool", "tool_call_id": "c", "content": "r"},
        ],
        "tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "auto", "max_tokens": 5,
        "reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": True}, "logprobs": True,
        "top_logprobs": 2, "stop": ["zz"], "logit_bias": {"1": 1}, "stream_options": {"include_usage": True},
        "stream": True,
    },
    "/v1/completions": {"prompt": ["a", "b"], "max_tokens": 3, "logprobs": 1, "echo": True, "n": 2},
    "/v1/responses": {
        "input": [
            {"role": "user", "content": "a"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "s"}]},
            {"type": "message", "id": "m", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "b", "annotations": []}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "s"}]},
        ],
        "tools": [{"type": "function", **FUNCTION, "strict": False}], "tool_choice": "none",
        "instructions": "i", "max_output_tokens": 5, "temperature": 0.5,
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "reasoning": {"effort": "high", "summary": "auto"}, "metadata": {"a": "b"}, "top_logprobs": 1,
        "include": ["message.output_text.logprobs"], "store": True, "background": False, "truncation": "auto",
        "stream": False,
    },
    "/v1/messages": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "x"}}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "r"}]},
        ],
        "system": [{"type": "text", "text": "s"}], "max_tokens": 50, "stop_sequences": ["zz"], "top_k": 3,
        "tools": [{"name": "f", "description": "d", "input_schema": SCHEMA}], "tool_choice": {"type": "auto"},
        "thinking": {"type": "enabled", "budget_tokens": 20}, "metadata": {"user_id": "u"}, "stream": True,
        "output_config": {"effort": "high"},
    },
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "a"}], "system": "s"},
    "/tokenize": {"messages": [{"role": "user", "content": "a"}], "return_token_strs": True},
    "/detokenize": {"tokens": [1, 2, 3]},
}  # fmt: skip
VALUES = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**80), 10**400, 0.5, -1e308,
    "", "x", "\0", "é" * 300, "auto", "none", "required", [], [[]], [None], [1, "a"], [{}],
    {}, {"type": "x"}, {"a": {"b": []}}, {"": None}, {"type": "function"},
]  # fmt: skip


def places(value, path=()):
    """Every place inside of a body."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def spoiled(rng: random.Random, good: dict) -> dict:
    body = copy.deepcopy(good)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        all_places = list(places(body))
        if not all_places:
            return body
        *path, last = rng.choice(all_places)
        inside = body
        for key in path:
            inside = inside[key]
        how, value = rng.randrange(4), copy.deepcopy(rng.choice(VALUES))
        if how == 0:
            del inside[last]
        elif how == 1 and isinstance(inside, dict):
            inside[rng.choice(["what", "type", "content", ""])] = value
        else:
            inside[last] = value
    return body


@pytest.mark.parametrize(
    "arguments", [*(opener * n for n in (900, 9000) for opener in ("[", '{"a":')), "9" * 9000]
)
async def test_arguments_that_are_hard_to_read(arguments):
    function = {"name": "f", "arguments": arguments}
    call = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": function}]}
    user = {"role": "user", "content": "a"}
    client = client_of(scripted("a"))
    for path, body in [
        ("/v1/chat/completions", {"messages": [user, call]}),
        ("/v1/responses", {"input": [user, {"type": "function_call", "call_id": "c", **function}]}),
    ]:
        response = await client.post(path, body)
        assert response.status_code == 400
        assert "arguments is not JSON" in response.json()["error"]["message"]


@pytest.mark.parametrize("arguments", ['{"a":' * 900 + "1" + "}" * 900, '{"a": "\\ud800"}'])
async def test_arguments_that_are_hard_to_write(arguments):
    """The template writes them as JSON again."""
    template = (
        "{% for m in messages %}{{ m.content }}"
        "{% for c in m.tool_calls or () %}{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}"
    )
    function = {"name": "f", "arguments": arguments}
    call = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": function}]}
    client = client_of(scripted("a", template))
    response = await client.post(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}, call]}
    )
    assert response.status_code in (200, 400), response.text


@pytest.mark.parametrize("path", GOOD)
async def test_no_request_is_a_fault(path, seed):
    rng = random.Random(seed)
    engine = scripted("<think>Hm.</think>Hi.", TEMPLATE)
    client = client_of(engine)
    assert (await client.post(path, GOOD[path])).status_code == 200
    statuses = set()
    for _ in range(300):
        body = spoiled(rng, GOOD[path])
        response = await client.post(path, body)
        statuses.add(response.status_code)
        assert response.status_code in (200, 400, 404), (body, response.text)
        if response.status_code == 400:
            assert response.json()["error"]["message"]
    assert 400 in statuses
    assert (await client.post(path, GOOD[path])).status_code == 200
    assert engine.running == 0
