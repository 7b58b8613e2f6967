"""/v1/messages over a scripted engine, and the `anthropic` client over real sockets."""

from __future__ import annotations

import json
import random

import anthropic
import jiter  # with which the client reads arguments that were cut off
import pytest

from tenon.parse import formats
from tenon.server.app import build_app
from tenon.server.settings import ServerSettings
from tests.server.conftest import Client
from tests.server.serving import serving
from tests.server.test_output_format import CALL, TEMPLATE, client_of, scripted

PATH = "/v1/messages"
HI = [{"role": "user", "content": "hi"}]
TOOL = {"name": "get_weather", "description": "The weather.", "input_schema": {"type": "object"}}


def body(**fields):
    return {"model": "fake", "messages": HI, "max_tokens": 1000} | fields


async def events(client: Client, fields: dict) -> list[dict]:
    """The events of a stream; their names are their types."""
    response = await client.post(PATH, fields | {"stream": True})
    assert response.status_code == 200, response.text
    *blocks, rest = response.text.split("\n\n")
    assert rest == ""
    out = []
    for block in blocks:
        name, data = block.split("\n")
        out.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {out[-1]['type']}"
    return out


def folded(stream: list[dict]) -> dict:
    """What a client makes of a stream; checks the order of the events."""
    assert [event["type"] for event in stream[:2]] == ["message_start", "ping"]
    assert [event["type"] for event in stream[-2:]] == ["message_delta", "message_stop"]
    message, text, open_ = stream[0]["message"], "", None
    for event in stream[2:-2]:
        match event["type"]:
            case "content_block_start":
                assert open_ is None
                assert event["index"] == len(message["content"])
                open_, text = event["index"], ""
                message["content"].append(event["content_block"])
            case "content_block_delta":
                assert event["index"] == open_
                delta = event["delta"]
                if delta["type"] == "signature_delta":
                    message["content"][open_]["signature"] = delta["signature"]
                text += delta.get("text") or delta.get("thinking") or delta.get("partial_json") or ""
            case "content_block_stop":
                block = message["content"][event["index"]]
                if block["type"] == "tool_use":
                    block["input"] = jiter.from_json(text.encode() or b"{}", partial_mode=True)
                else:
                    block[block["type"]] = text
                open_ = None
            case other:
                raise AssertionError(other)
    assert open_ is None
    return message | stream[-2]["delta"] | {"usage": stream[-2]["usage"]}


def without_ids(message: dict) -> dict:
    content = [{key: value for key, value in block.items() if key != "id"} for block in message["content"]]
    return message | {"id": None, "content": content}


async def test_thinking_text_and_a_call():
    client = client_of(scripted(f"<think>\nHm.\n</think>\n\nLet me look.\n{CALL}"))
    answer = (await client.post(PATH, body(tools=[TOOL]))).json()
    assert answer["id"].startswith("msg_")
    assert (answer["type"], answer["role"], answer["model"]) == ("message", "assistant", "fake")
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("tool_use", None)
    thinking, text, call = answer["content"]
    assert (thinking["type"], thinking["thinking"]) == ("thinking", "Hm.")
    assert thinking["signature"]
    assert text == {"type": "text", "text": "Let me look."}
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "get_weather", {"city": "Paris"})


async def test_stream_equals_whole(seed):
    rng = random.Random(seed)
    names = [name for name in formats.names() if formats.load(name).calls or formats.load(name).channels]
    for _ in range(25):
        name = rng.choice(names)
        case = rng.choice(formats.cases(name))
        client = client_of(scripted(case.text), output_format=name)
        tools = [
            {"name": tool["function"]["name"], "input_schema": tool["function"].get("parameters", {})}
            for tool in case.tools or []
        ]
        whole = (await client.post(PATH, body(tools=tools))).json()
        streamed = folded(await events(client, body(tools=tools)))
        assert without_ids(streamed) == without_ids(whole), (name, case.name)


async def test_stop_reasons(client, engine):
    engine.script = lambda prompt, choice: "one two three"
    for fields, expected in (
        ({}, ("end_turn", None)),
        ({"max_tokens": 3}, ("max_tokens", None)),
        ({"stop_sequences": ["zzz", "two"]}, ("stop_sequence", "two")),
    ):
        answer = (await client.post(PATH, body(**fields))).json()
        assert (answer["stop_reason"], answer["stop_sequence"]) == expected
    engine.script = lambda prompt, choice: "x" * 5000
    answer = (await client.post(PATH, body(max_tokens=100_000))).json()
    assert answer["stop_reason"] == "model_context_window_exceeded"
    assert answer["usage"]["output_tokens"] == 2048 - len("<user>hi\n<assistant>")


async def test_usage_counts_cached_tokens_apart(client):
    usage = (await client.post(PATH, body(max_tokens=2))).json()["usage"]
    assert usage == {
        "input_tokens": 10,
        "cache_read_input_tokens": 10,
        "cache_creation_input_tokens": 0,
        "output_tokens": 2,
    }


async def test_a_call_that_is_cut_off():
    client = client_of(scripted(CALL.replace('"Paris"', '"Paris", "unit": "C"')))
    limit = CALL.index('"Paris"') + len('"Paris", "un')
    answer = (await client.post(PATH, body(tools=[TOOL], max_tokens=limit))).json()
    assert answer["stop_reason"] == "max_tokens"
    assert answer["content"][0]["input"] == {"city": "Paris"}


async def test_the_conversation_reaches_the_template():
    engine = scripted("Hi.", "{% for m in messages %}{{ m | tojson }}\n{% endfor %}")
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "t", "signature": "s"},
            {"type": "text", "text": "b"},
            {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "r"}]},
            {"type": "text", "text": "c"},
        ]},
    ]  # fmt: skip
    response = await client_of(engine).post(
        PATH, body(messages=messages, system=[{"type": "text", "text": "s"}])
    )
    assert response.status_code == 200, response.text
    seen = [json.loads(line) for line in bytes(engine.requests[0].prompt).decode().splitlines()]
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    assert seen == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "reasoning_content": "t", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "r"},
        {"role": "user", "content": "c"},
    ]


async def test_the_last_message_of_the_assistant_goes_on(client, engine):
    messages = [*HI, {"role": "assistant", "content": "hello th"}]
    await client.post(PATH, body(messages=messages))
    assert bytes(engine.requests[0].prompt) == b"<user>hi\n<assistant>hello th"


async def test_thinking_switches():
    engine = scripted("Hi.")
    client = client_of(engine)
    for fields, tail in (
        ({"thinking": {"type": "enabled", "budget_tokens": 100}}, b"<think>"),
        ({"thinking": {"type": "disabled"}}, b"<think></think>"),
        ({"thinking": {"type": "adaptive"}}, b"hi\n"),
        ({"output_config": {"effort": "high"}}, b"effort high\n<think>"),
    ):
        response = await client.post(PATH, body(**fields))
        assert response.status_code == 200, response.text
        assert bytes(engine.requests[-1].prompt).endswith(tail), fields


async def test_sampling_fields_reach_the_engine(client, engine):
    await client.post(PATH, body(temperature=0.5, top_p=0.9, top_k=7, stop_sequences=["z"], max_tokens=9))
    params = engine.requests[0].params
    assert (params.temperature, params.top_p, params.top_k, params.stop, params.max_tokens) == (
        0.5, 0.9, 7, ["z"], 9
    )  # fmt: skip


async def test_count_tokens(client):
    fields = {"model": "fake", "messages": HI, "system": "s"}
    counted = (await client.post(PATH + "/count_tokens", fields)).json()
    assert counted == {"input_tokens": len("<system>s\n<user>hi\n<assistant>")}
    usage = (await client.post(PATH, fields | {"max_tokens": 1})).json()["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == counted["input_tokens"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
         "messages[0].content[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": "x"}]}]},
         "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, "messages"),
        ({"messages": [*HI, {"role": "assistant", "content": ""}]}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_k": -5}, "top_k"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1000}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "thinking"),
        ({"thinking": {"type": "sometimes"}}, "thinking.type"),
        ({"output_config": {"effort": "high"}}, "output_config.effort"),
        ({"output_config": {"effort": "heroic"}}, "output_config.effort"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools[0].name"),
        ({"tools": [TOOL, {"type": "bash_20250124", "name": "bash"}]}, "tools[1]"),
        ({"tools": [TOOL]}, "tools"),  # this model's output format has no calls
        ({"mcp_servers": []}, "mcp_servers"),
        ({"stream": "x"}, "stream"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named(client, fields, named):
    response = await client.post(PATH, body(**fields))
    assert response.status_code == 400, response.text
    answer = response.json()
    assert (answer["type"], answer["error"]["type"]) == ("error", "invalid_request_error")
    assert answer["request_id"] == response.headers["x-request-id"]
    assert named in answer["error"]["message"]
    assert (await client.post(PATH, body())).status_code == 200


async def test_errors_have_anthropics_shape(engine):
    client = Client(build_app(engine, ServerSettings.with_keys(["key"])))
    cases = [
        ({}, {}, 401, "authentication_error"),
        ({"x_api_key": "key"}, {"model": "nope"}, 404, "not_found_error"),
        ({"x_api_key": "key", "content_type": "text/plain"}, {}, 415, "invalid_request_error"),
    ]
    for headers, fields, status, kind in cases:
        response = await client.post(PATH, body(**fields), **headers)
        assert (response.status_code, response.json()["error"]["type"]) == (status, kind)
    assert (await client.http.get(PATH, headers={"x-api-key": "key"})).json()["type"] == "error"
    for method in ("GET", "POST"):  # a part of the API that is not here
        url = f"{PATH}/batches"
        assert (await client.http.request(method, url)).json()["error"]["type"] == "authentication_error"
        response = await client.http.request(method, url, headers={"x-api-key": "key"})
        assert (response.status_code, response.json()["error"]["type"]) == (404, "not_found_error")
        assert url in response.json()["error"]["message"]
    engine.ready = False
    response = await client.post(PATH, body(), x_api_key="key")
    assert (response.status_code, response.json()["error"]["type"]) == (503, "overloaded_error")
    engine.ready, engine.die_after = True, 3
    response = await client.post(PATH, body(stream=True), x_api_key="key")
    name, data = response.text.split("\n\n")[-2].split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["error"]["type"] == "overloaded_error"


# --- the client


async def test_the_client():
    engine = scripted(f"<think>\nHm.\n</think>\n\nLet me look.\n{CALL}", TEMPLATE)
    async with (
        serving(engine, ServerSettings.with_keys(["key"])) as (url, _),
        anthropic.AsyncAnthropic(base_url=url, api_key="key", max_retries=0) as api,
    ):
        fields = body(tools=[TOOL], thinking={"type": "enabled", "budget_tokens": 100})
        engine.script = lambda prompt, choice: f"Hm.</think>\nLet me look.\n{CALL}"
        whole = await api.messages.create(**fields)
        texts: dict[str, str] = {"text": "", "thinking": "", "input_json": ""}
        async with api.messages.stream(**fields) as stream:
            async for event in stream:
                if event.type in texts:
                    texts[event.type] += getattr(event, event.type.replace("input_json", "partial_json"))
            final = await stream.get_final_message()
        counted = await api.messages.count_tokens(model="fake", messages=HI)
        with pytest.raises(anthropic.BadRequestError) as caught:
            await api.messages.create(**body(max_tokens=-1))
        with pytest.raises(anthropic.AuthenticationError):
            await api.with_options(api_key="no").messages.create(**body())
    assert caught.value.body["error"]["type"] == "invalid_request_error"
    assert counted.input_tokens == len("<user>hi\n")
    for message in (whole, final):
        assert message.stop_reason == "tool_use"
        thinking, text, call = message.content
        assert (thinking.thinking, text.text) == (texts["thinking"], texts["text"]) == ("Hm.", "Let me look.")
        assert call.input == json.loads(texts["input_json"]) == {"city": "Paris"}
    assert final.usage == whole.usage
