"""The table of limits: how it is set, and that every field of every request is held to it."""

from __future__ import annotations

import dataclasses

import pytest

from tenon.errors import ConfigError
from tenon.server.app import build_app
from tenon.server.limits import Limits
from tenon.server.settings import ServerSettings
from tests.server.conftest import Client

USER = [{"role": "user", "content": "a"}]


def test_from_the_command_line():
    limits = Limits.parse(["n=4", "body_bytes=16MiB"])
    assert (limits.n, limits.body_bytes, limits.tools) == (4, 16 << 20, Limits().tools)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("what=1", "there is no limit 'what'; there are connections, "),
        ("n", "write NAME=VALUE"),
        ("n=x", "limit n: 'x' is not a number of choices"),
        ("body_bytes=1XiB", "limit body_bytes: '1XiB' is not a number of bytes"),
        ("n=-1", "limit n must be at least 1 and at most "),
        ("n=0", "limit n must be at least 1 and at most "),
        ("json_depth=0", "limit json_depth must be at least 1, not 0"),
        ("n=1000000", "limit n must be at least 1 and at most "),
        ("tools=-1", "limit tools must be at least 0, not -1"),
        (
            "template_seconds=0",
            r"limit template_seconds must be at least 0\.01 and at most 1000000000, not 0",
        ),
        ("body_bytes=0", "limit body_bytes must be at least 1, not 0"),
    ],
)
def test_wrong_settings(setting, message):
    with pytest.raises(ConfigError, match=message):
        Limits.parse([setting])


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Limits)])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "-1"])
def test_what_is_no_quantity(name, value):
    with pytest.raises(ConfigError, match=f"^limit {name}"):
        Limits.parse([f"{name}={value}"])


def test_every_limit_is_described():
    for field in dataclasses.fields(Limits):
        assert field.metadata["meaning"]
        assert field.metadata["status"] in (200, 400, 404, 408, 413, 414, 429, 431, 503, 504)


BEYOND = {
    "messages": ("/v1/chat/completions", {"messages": USER * 3}),
    "tools": ("/v1/chat/completions", {"messages": USER, "tools": [{}] * 3}),
    "inputs": ("/v1/completions", {"prompt": ["a"] * 3}),
    "n": ("/v1/completions", {"prompt": "a", "n": 3}),
    "logprobs": ("/v1/completions", {"prompt": "a", "logprobs": 3}),
    "logit_bias": ("/v1/completions", {"prompt": "a", "logit_bias": dict.fromkeys("123", 1)}),
    "stop_strings": ("/v1/messages", {"messages": USER, "max_tokens": 1, "stop_sequences": ["a"] * 3}),
    "stop_chars": ("/v1/completions", {"prompt": "a", "stop": "aaa"}),
    "stop_token_ids": ("/v1/completions", {"prompt": "a", "stop_token_ids": [1, 2, 3]}),
    "generated_tokens": ("/v1/completions", {"prompt": "a", "n": 1, "max_tokens": 3}),
    "sequences": ("/v1/completions", {"prompt": ["a", "b"], "n": 2}),
}


@pytest.mark.parametrize("name", BEYOND)
async def test_beyond_a_limit(engine, name):
    path, body = BEYOND[name]
    client = Client(build_app(engine, ServerSettings(limits=Limits(**{name: 2}))))
    response = await client.post(path, body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert "over the limit of 2" in error["message"], error
    client = Client(build_app(engine, ServerSettings(limits=Limits(**{name: 4}))))
    assert "over the limit" not in (await client.post(path, body)).text
    assert engine.running == 0


@pytest.mark.parametrize(
    ("limit", "constraint"),
    [
        ("schema_bytes=100", {"json": {"type": "object", "description": "d" * 100}}),
        ("schema_depth=2", {"json": {"properties": {"a": {"properties": {"b": {}}}}}}),
        ("regex_chars=3", {"regex": "abcd"}),
        ("grammar_chars=10", {"grammar": 'start: "abcd"'}),
        ("choices=1", {"choice": ["a", "b"]}),
    ],
)
async def test_limits_of_constraints(engine, limit, constraint):
    body = {"prompt": "a", "structured_outputs": constraint}
    settings = ServerSettings(limits=Limits.parse([limit]))
    response = await Client(build_app(engine, settings)).post("/v1/completions", body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"].startswith("structured_outputs")
    assert (
        await Client(build_app(engine, ServerSettings())).post("/v1/completions", body)
    ).status_code == 200


async def test_schemas_of_tools_that_go_into_one_grammar(engine):
    schema = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(1000)}}
    tools = [{"type": "function", "function": {"name": f"f{i}", "parameters": schema}} for i in range(20)]
    body = {"messages": USER, "tools": tools, "tool_choice": "required"}
    settings = ServerSettings(output_format="hermes")
    response = await Client(build_app(engine, settings)).post("/v1/chat/completions", body)
    assert response.status_code == 400
    assert (response.json()["error"]["param"], response.json()["error"]["code"]) == (
        "tools",
        "limit_exceeded",
    )
