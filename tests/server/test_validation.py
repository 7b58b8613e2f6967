"""Wrong input gets a 400 that names the field, and the next good request works."""

from __future__ import annotations

import json

import pytest

from tenon.core.prompt import check_length
from tenon.errors import InvalidRequest

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
GOOD = {CHAT: {"messages": [{"role": "user", "content": "hi"}]}, TEXT: {"prompt": "hi"}}

NUMBERS = ["x", True, [], {}, "1"]
WHOLE = [*NUMBERS, 1.5, 2**31, -(2**31), 2**63, 2**64, 2**80]
HUGE = 10**30

SHARED: dict[str, list] = {
    "n": [*WHOLE, 0, -1, 129],
    "temperature": [*NUMBERS, -0.1, 100.5, HUGE],
    "top_p": [*NUMBERS, 0, -1, 1.01, HUGE],
    "top_k": ["x", True, [], 1.5, -2, 2**31, 2**64],
    "min_p": [*NUMBERS, -0.1, 1.5],
    "presence_penalty": [*NUMBERS, -2.1, 2.1],
    "frequency_penalty": [*NUMBERS, -2.1, 2.1],
    "repetition_penalty": [*NUMBERS, 0, -1, 101],
    "seed": ["x", True, 1.5, [], 2**64, -(2**63) - 1],
    "max_tokens": [*WHOLE, 0, -1, 2048],
    "min_tokens": [*WHOLE, -1, 2047],
    "prompt_logprobs": [*WHOLE, -1, 21],
    "logit_bias": [1, "x", [], {"a": 1}, {"1": "x"}, {"1": 101}, {"1": -101}, {"-1": 1}, {"1.5": 1},
                   {"257": 1}, {"9" * 30: 1}, {str(i): 1 for i in range(1100)}],
    "stop": [1, True, {}, [1], [""], "", "x" * 257, ["a"] * 17],
    "stop_token_ids": [1, "x", ["x"], [-1], [257], [2**70], [1.5], [1] * 1025],
    "stream": ["x", 1, []],
    "stream_options": [1, "x", [], {"include_usage": "x"}, {"what": True}],
    "ignore_eos": ["x", 1],
    "include_stop_str_in_output": ["x", 1],
    "skip_special_tokens": ["x", 1],
    "add_special_tokens": ["x", 1],
    "return_token_ids": ["x", 1],
    "priority": ["x", True, 1.5, 2**31, -(2**31) - 1, 2**80],
    "cache_salt": [1, "", "a b", "x" * 129, "é", "a\n"],
    "user": [1, []],
    "metadata": [1, {"a": 1}],
    "model": [1, []],
    "structured_outputs": [1, {}, {"json": 1}, {"json": "{"}, {"regex": 1}, {"regex": "a" * 5000},
                           {"what": 1}, {"regex": "a", "choice": ["a"]}, {"choice": []}, {"grammar": ""},
                           {"json_object": 1}, {"structural_tag": "x"}],
    "response_format": [{"type": "json_schema"}, "x", 1, [], {"type": "x"},
                        {"type": "json_schema", "json_schema": 1},
                        *[{"type": "json_schema", "json_schema": {"name": "n", "schema": {}} | wrong}
                          for wrong in ({"schema": 1}, {"name": None}, {"name": 1}, {"name": ""},
                                        {"name": "a b"}, {"name": "n" * 65}, {"what": 1},
                                        {"strict": "x"}, {"strict": 1}, {"description": 1})]],
    "use_beam_search": [True, "x"],
    "logits_processors": [["x"]],
    "frobnicate": [1, None],
}  # fmt: skip
CHAT_ONLY: dict[str, list] = {
    "messages": [None, 1, "x", [], {}, [1], [{}], [{"role": "user"}], [{"role": "nobody", "content": "x"}],
                 [{"role": "user", "content": 1}], [{"role": "user", "content": [1]}],
                 [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
                 [{"role": "user", "content": [{"type": "text"}]}],
                 [{"role": "user", "content": [{"type": "text", "text": 1}]}],
                 [{"role": "tool", "content": "x"}], [{"role": "tool", "content": "x", "tool_call_id": ""}],
                 [{"role": "user", "content": "x", "zz": 1}], [{"role": "user", "content": None}],
                 [{"role": "assistant", "content": "x", "tool_calls": [{"function": {"arguments": "{"}}]}],
                 [{"role": "user", "content": "x" * 3000}]],
    "max_completion_tokens": [*WHOLE, 0, -1, 2048],
    "logprobs": ["x", 1, []],
    "top_logprobs": [*WHOLE, -1, 21, 5],
    "continue_final_message": ["x", 1],
    "add_generation_prompt": ["x", 1],
    "tools": [1, "x", {}, [1], [{}], [{"type": "x"}], [{"function": {"name": 1}}]],
    "tool_choice": [1, "x", "required", {}],
    "parallel_tool_calls": ["x", 1],
    "reasoning_effort": [1, "x"],
    "thinking_token_budget": [*WHOLE, -1, 5],
    "thinking_budget": [*WHOLE, -1, 5],
    "chat_template_kwargs": [1, "x", {"a": 1}],
}  # fmt: skip
TEXT_ONLY: dict[str, list] = {
    "prompt": [None, 1, {}, [], "", [None], [True], [1.5], ["a", 1], [[]], [["a"]], [-1], [257], [[1], "a"]],
    "logprobs": [*WHOLE, -1, 21],
    "echo": ["x", 1],
    "best_of": ["x", 2, -1],
    "suffix": ["x", 1],
}

CODES = {
    "invalid_value",
    "limit_exceeded",
    "missing_field",
    "unknown_field",
    "not_supported",
    "context_length_exceeded",
}
CASES = [
    pytest.param(path, field, value, id=f"{path.rsplit('/', 2)[-2]}-{field}-{json.dumps(value)[:30]}")
    for path, tables in ((CHAT, (SHARED, CHAT_ONLY)), (TEXT, (SHARED, TEXT_ONLY)))
    for table in tables
    for field, values in table.items()
    for value in values
]


@pytest.mark.parametrize(("path", "field", "value"), CASES)
async def test_bad_value(client, engine, path, field, value):
    status, error = await client.error(path, GOOD[path] | {field: value})
    assert status == 400, error
    assert error["type"] == "invalid_request_error"
    assert error["param"], error
    assert error["param"].replace("[", ".").split(".")[0] == field
    assert field in error["message"]
    assert error["code"] in CODES
    assert (await client.post(path, GOOD[path])).status_code == 200
    assert engine.running == 0


@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_null_means_absent(client, path):
    fields = {name: None for name in SHARED if name != "frobnicate"}
    response = await client.post(path, GOOD[path] | fields)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"nope", b"[]", b"1", b"null", b"\xff\xfe", b'{"prompt": "\xff"}', b'{"prompt": NaN}',
        b'{"prompt": "a", "temperature": NaN}', b'{"prompt": "a", "temperature": 1e999}',
        b'{"prompt": "\\ud800"}', b'{"prompt": "a"} x', b'{"prompt": ' + b"[" * 100_000,
        b'{"prompt": "a", "response_format": ' + b'{"a":' * 100_000,
        b'{"prompt": "a", "response_format": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)  # fmt: skip
async def test_not_json(client, body):
    status, error = await client.error(TEXT, body)
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert (await client.post(TEXT, GOOD[TEXT])).status_code == 200


async def test_path_of_a_nested_field(client):
    message = {"role": "user", "content": "x"}
    _, error = await client.error(CHAT, {"messages": [message, {"role": "user", "content": 1}]})
    assert error["param"] == "messages[1].content"
    parts = [{"type": "text", "text": "a"}, {"type": "video"}]
    _, error = await client.error(CHAT, {"messages": [{"role": "user", "content": parts}]})
    assert error["param"] == "messages[0].content[1].type"


async def test_max_completion_tokens_is_named(client):
    _, error = await client.error(CHAT, GOOD[CHAT] | {"max_completion_tokens": 0})
    assert error["param"] == "max_completion_tokens"
    assert "max_completion_tokens" in error["message"]


async def test_two_names_of_one_limit_must_agree(client):
    status, error = await client.error(CHAT, GOOD[CHAT] | {"max_tokens": 5, "max_completion_tokens": 6})
    assert (status, error["param"], error["code"]) == (400, "max_completion_tokens", "invalid_value")
    response = await client.post(CHAT, GOOD[CHAT] | {"max_tokens": 5, "max_completion_tokens": 5})
    assert response.status_code == 200


async def test_context_length_code(client):
    _, error = await client.error(TEXT, {"prompt": "x" * 5000})
    assert error["code"] == "context_length_exceeded"
    with pytest.raises(InvalidRequest) as offline:
        check_length(5000, 2048)
    assert error["message"] == str(offline.value)


async def test_invalid_unicode_in_text(client):
    status, error = await client.error(TEXT, b'{"prompt": "\\udc80x"}')
    assert status == 400
    assert error["type"] == "invalid_request_error"
