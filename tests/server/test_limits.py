"""The table of limits: how it is set, and that every field of every request is held to it."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from tenon.errors import ConfigError
from tenon.server import limits as limits_module
from tenon.server.app import build_app
from tenon.server.errors import ApiError
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


@pytest.mark.parametrize(
    ("given", "inputs", "items"),
    [
        ("text", 1, 1),
        (["a", "b", "c"], 3, 1),
        ([1, 2, 3], 1, 1),  # the ids of one text
        ([[1, 2], [3]], 2, 1),
        ([{"role": "user"}, {"role": "user"}], 1, 2),  # the messages of one conversation
        ([], 1, 1),
        (None, 1, 1),
    ],
    ids=str,
)
def test_how_inputs_are_counted(given, inputs, items):
    assert (limits_module._inputs(given), limits_module._items(given)) == (inputs, items)


class Request(msgspec.Struct):
    """Fields by all names that are held to a limit, and one that is not."""

    messages: Any = None
    input: Any = None
    prompt: Any = None
    documents: Any = None
    text_1: Any = None
    text_2: Any = None
    tools: Any = None
    n: Any = None
    logprobs: Any = None
    top_logprobs: Any = None
    prompt_logprobs: Any = None
    logit_bias: Any = None
    stop: Any = None
    stop_sequences: Any = None
    stop_token_ids: Any = None
    other: Any = None


HELD = [
    ("messages", "messages", [USER[0]] * 2, [USER[0]] * 3, "3 entries"),
    ("input", "messages", USER * 2, USER * 3, "3 entries"),
    ("input", "inputs", ["a"] * 2, ["a"] * 3, "3 entries"),
    *((name, "inputs", [[1, 2, 3]] * 2, ["a"] * 3, "3 entries") for name in ("prompt", "documents")),
    *((name, "inputs", [1, 2, 3], ["a"] * 3, "3 entries") for name in ("text_1", "text_2")),
    ("tools", "tools", [{}] * 2, [{}] * 3, "3 entries"),
    ("n", "n", 2, 3, "3 choices"),
    ("n", "n", 2, 1e14, "100000000000000 choices"),
    ("n", "n", 2, 1e15, "so many choices"),
    *((name, "logprobs", 2, 3, "3 tokens") for name in ("logprobs", "top_logprobs", "prompt_logprobs")),
    ("logit_bias", "logit_bias", {"1": 1, "2": 2}, dict.fromkeys("123"), "3 entries"),
    *((name, "stop_strings", ["a"] * 2, ["a"] * 3, "3 entries") for name in ("stop", "stop_sequences")),
    *(
        (name, "stop_chars", ["aa", ""], ["a", "aaa", ""], "3 characters")
        for name in ("stop", "stop_sequences")
    ),
    *((name, "stop_chars", "aa", "aaa", "3 characters") for name in ("stop", "stop_sequences")),
    ("stop_token_ids", "stop_token_ids", [1, 2], [1, 2, 3], "3 entries"),
]


@pytest.mark.parametrize(("field", "limit", "within", "beyond", "shown"), HELD, ids=str)
def test_fields_are_held_by_their_names(field, limit, within, beyond, shown):
    limits = Limits(**{limit: 2})
    limits.check(Request())
    limits.check(Request(other=[1] * 3, **{field: within}))
    Limits().check(Request(other=0, **{field: beyond if limit != "n" else within}))
    with pytest.raises(ApiError) as caught:
        limits.check(Request(other=[1] * 3, **{field: beyond}))
    error = caught.value
    assert error.message == f"{field}: {shown} are over the limit of 2"
    assert (error.status, error.param, error.code) == (400, field, "limit_exceeded")


def test_switches_and_lists_of_nothing():
    none = Limits(logprobs=0, stop_strings=0, tools=0)
    none.check(Request(logprobs=True, stop=[], stop_sequences=[], tools=[]))  # true is no number of tokens
    with pytest.raises(ApiError, match="1 tokens"):
        none.check(Request(logprobs=1))
    with pytest.raises(ApiError, match="1 entries"):
        none.check(Request(stop="text"))


def test_what_a_limit_knows():
    def known(*given, **more):
        return limits_module._limit(*given, **more).metadata

    plain = {"unit": "bytes", "status": 413, "meaning": "a file", "ceiling": None, "least": 1}
    assert known(5, "bytes", 413, "a file") == plain
    assert known(5, "bytes", 413, "a file", 7, 0) == plain | {"ceiling": 7, "least": 0}
    seconds = {"unit": "seconds", "status": 408, "meaning": "a wait", "ceiling": 1e9, "least": 0.01}
    assert known(5.0, "seconds", 408, "a wait") == seconds
    assert known(5.0, "seconds", 408, "a wait", 9, least=0) == seconds | {"ceiling": 9, "least": 0}
    assert limits_module._limit(5, "bytes", 413, "a file").default == 5


@pytest.mark.parametrize("field", dataclasses.fields(Limits), ids=lambda field: field.name)
def test_how_far_each_can_be_set(field):
    least, ceiling = field.metadata["least"], field.metadata["ceiling"]
    for value in (least, field.default, *([] if ceiling is None else [ceiling])):
        assert getattr(Limits(**{field.name: value}), field.name) == value
    most = "" if ceiling is None else f" and at most {ceiling:.0f}"
    for value in (least - 0.001, *([] if ceiling is None else [ceiling + 1])):
        with pytest.raises(ConfigError) as error:
            Limits(**{field.name: value})
        assert str(error.value) == f"limit {field.name} must be at least {least}{most}, not {value}"


def test_how_settings_are_read():
    limits = Limits.parse(["n=4", "body_bytes=2KiB", "template_seconds=0.5", "n=3"])
    assert limits == Limits(n=3, body_bytes=2048, template_seconds=0.5)
    names = ", ".join(field.name for field in dataclasses.fields(Limits))
    for setting, message in (
        ("what=1", f"there is no limit 'what'; there are {names}"),
        ("n", "limit 'n': write NAME=VALUE"),
        ("n=1=2", "limit n: '1=2' is not a number of choices"),
        ("n=1.5", "limit n: '1.5' is not a number of choices"),
        ("template_seconds=x", "limit template_seconds: 'x' is not a number of seconds"),
        ("body_bytes=x", "limit body_bytes: 'x' is not a number of bytes"),
    ):
        with pytest.raises(ConfigError) as error:
            Limits.parse([setting])
        assert str(error.value) == message


def test_what_a_job_may_take():
    limits = Limits(
        template_seconds=1.5,
        template_bytes=2 << 20,
        tokenize_seconds=3.5,
        tokenize_bytes=4 << 20,
        grammar_seconds=5.5,
        grammar_bytes=6 << 20,
    )
    assert msgspec.structs.asdict(limits.allowance) == {
        "template_seconds": 1.5,
        "template_bytes": 2 << 20,
        "tokenize_seconds": 3.5,
        "tokenize_bytes": 4 << 20,
        "grammar_seconds": 5.5,
        "grammar_bytes": 6 << 20,
    }
