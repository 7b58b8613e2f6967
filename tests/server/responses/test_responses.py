"""/v1/responses over a scripted engine."""

from __future__ import annotations

import asyncio
import copy
import json
import random

import pytest

from tenon.parse import formats
from tenon.server import line
from tenon.server.app import build_app
from tenon.server.limits import Limits
from tenon.server.settings import ServerSettings
from tests.server.conftest import Client
from tests.server.test_output_format import CALL, client_of, scripted

PATH = "/v1/responses"
TOOL = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
SHOWS = "{% for m in messages %}{{ m | tojson }}\n{% endfor %}"


def body(**fields):
    return {"model": "fake", "input": "hi"} | fields


def read_events(text: str) -> list[dict]:
    """The events of a stream; their names are their types."""
    *blocks, rest = text.split("\n\n")
    assert rest == ""
    out = []
    for block in blocks:
        name, data = block.split("\n")
        out.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {out[-1]['type']}"
    return out


async def events(client: Client, fields: dict) -> list[dict]:
    response = await client.post(PATH, fields | {"stream": True})
    assert response.status_code == 200, response.text
    out = read_events(response.text)
    assert [event["sequence_number"] for event in out] == list(range(len(out)))
    return out


def folded(stream: list[dict]) -> list[dict]:
    """The items that the deltas spell; checks the order of the events, and that .done repeats the deltas."""
    output: list[dict] = []
    text, logprobs, state = "", [], "between"
    for event in copy.deepcopy(stream):
        kind = event["type"].removeprefix("response.")
        if "output_index" in event:
            assert event["output_index"] == len(output) - (kind != "output_item.added")
        if "item_id" in event:
            assert event["item_id"] == output[-1]["id"]
        match kind:
            case "output_item.added":
                assert state == "between"
                output.append(event["item"])
                assert event["item"]["status"] == "in_progress"
                text, logprobs = "", []
                state = "arguments" if event["item"]["type"] == "function_call" else "item"
            case "content_part.added":
                assert (state, event["part"]["text"]) == ("item", "")
                output[-1]["content"].append(event["part"])
                state = "text"
            case "output_text.delta" | "reasoning_text.delta":
                assert state == "text"
                text += event["delta"]
                logprobs += event.get("logprobs", [])
            case "output_text.done" | "reasoning_text.done":
                assert (state, event["text"]) == ("text", text)
                output[-1]["content"][0]["text"] = text
                if kind == "output_text.done":
                    assert event["logprobs"] == logprobs
                    if logprobs:
                        output[-1]["content"][0]["logprobs"] = logprobs
                state = "part"
            case "content_part.done":
                assert (state, event["part"]) == ("part", output[-1]["content"][0])
                state = "item over"
            case "function_call_arguments.delta":
                assert state == "arguments"
                text += event["delta"]
            case "function_call_arguments.done":
                assert (state, event["arguments"], event["name"]) == ("arguments", text, output[-1]["name"])
                output[-1]["arguments"] = text
                state = "item over"
            case "output_item.done":
                assert state == "item over"
                assert event["item"] | {"status": "in_progress"} == output[-1]
                output[-1] = event["item"]
                state = "between"
    assert state == "between"
    return output


def without_ids(output: list[dict]) -> list[dict]:
    return [{name: value for name, value in item.items() if name not in ("id", "call_id")} for item in output]


async def test_reasoning_text_and_a_call():
    client = client_of(scripted(f"<think>\nHm.\n</think>\n\nLet me look.\n{CALL}"))
    answer = (await client.post(PATH, body(tools=[TOOL]))).json()
    assert answer["id"].startswith("resp_")
    assert (answer["object"], answer["status"], answer["error"]) == ("response", "completed", None)
    reasoning, message, call = answer["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert message["role"] == "assistant"
    assert [part["text"] for part in message["content"]] == ["Let me look."]
    assert (call["type"], call["name"]) == ("function_call", "get_weather")
    assert json.loads(call["arguments"]) == {"city": "Paris"}
    assert call["call_id"].startswith("call_")
    assert answer["usage"]["output_tokens_details"] == {"reasoning_tokens": len("\nHm.\n")}
    assert answer["usage"]["total_tokens"] == sum(answer["usage"][f"{k}_tokens"] for k in ("input", "output"))
    assert answer["completed_at"] >= answer["created_at"]


async def test_stream_equals_whole(seed):
    rng = random.Random(seed)
    names = [name for name in formats.names() if formats.load(name).calls or formats.load(name).channels]
    for _ in range(25):
        name = rng.choice(names)
        case = rng.choice(formats.cases(name))
        client = client_of(scripted(case.text), output_format=name)
        functions = [tool["function"] for tool in case.tools or []]
        tools = [TOOL | {"name": f["name"], "parameters": f.get("parameters")} for f in functions]
        fields = body(tools=tools, include=["message.output_text.logprobs"], top_logprobs=rng.randint(0, 3))
        whole = (await client.post(PATH, fields)).json()
        stream = await events(client, fields)
        last = stream[-1]["response"]
        assert without_ids(folded(stream)) == without_ids(whole["output"]), (name, case.name)
        assert without_ids(last["output"]) == without_ids(whole["output"])
        assert last["usage"] == whole["usage"]
        assert (last["status"], last["model"]) == (whole["status"], whole["model"])
        assert stream[-1]["type"] == f"response.{whole['status']}"


async def test_order_of_the_events(client, engine):
    engine.script = lambda prompt, choice: "ab"
    types = [event["type"].removeprefix("response.") for event in await events(client, body())]
    assert types == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
        "output_text.delta", "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip


async def test_the_limit(client, engine):
    engine.script = lambda prompt, choice: "x" * 3000
    answer = (await client.post(PATH, body(max_output_tokens=5))).json()
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert (answer["output"][0]["status"], answer["output"][0]["content"][0]["text"]) == (
        "incomplete",
        "xxxxx",
    )
    stream = await events(client, body(max_output_tokens=5))
    assert stream[-1]["type"] == "response.incomplete"


async def test_logprobs_are_of_the_text(client, engine):
    engine.script = lambda prompt, choice: "<think>Hm.</think>aé"
    fields = body(include=["message.output_text.logprobs"], top_logprobs=2)
    client = client_of(engine, output_format="qwen3")
    part = (await client.post(PATH, fields)).json()["output"][1]["content"][0]
    assert part["text"] == "aé"
    assert b"".join(bytes(p["bytes"]) for p in part["logprobs"]) == "aé".encode()
    assert [top["token"] for top in part["logprobs"][1]["top_logprobs"]] == ["a", "b"]
    plain = (await client.post(PATH, body())).json()["output"][1]["content"][0]
    assert plain["logprobs"] is None


async def test_fields_reach_the_engine_and_the_answer(client, engine):
    fields = {
        "temperature": 0.5, "top_p": 0.9, "max_output_tokens": 7, "metadata": {"a": "b"},
        "user": "me", "instructions": "Be brief.", "truncation": "auto", "store": False,
    }  # fmt: skip
    answer = (await client.post(PATH, body(**fields, top_k=3, seed=4, stop=["zz"]))).json()
    assert {name: answer[name] for name in fields} == fields
    params = engine.requests[0].params
    assert (params.temperature, params.top_p, params.max_tokens, params.top_k, params.seed, params.stop) == (
        0.5, 0.9, 7, 3, 4, ["zz"],
    )  # fmt: skip
    assert bytes(engine.requests[0].prompt) == b"<system>Be brief.\n<user>hi\n<assistant>"


async def test_items_become_messages():
    engine = scripted("Hi.", SHOWS)
    items = [
        {"role": "developer", "content": "d"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None,
         "content": [{"type": "reasoning_text", "text": "t"}]},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "b", "annotations": [], "logprobs": None}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"x": 1}'},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "r"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "s"}]},
        {"role": "assistant", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "c"},
    ]  # fmt: skip
    response = await client_of(engine).post(PATH, body(input=items))
    assert response.status_code == 200, response.text
    seen = [json.loads(line) for line in bytes(engine.requests[0].prompt).decode().splitlines()]
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": {}}},
    ]
    assert seen == [
        {"role": "developer", "content": "d"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "reasoning_content": "t", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "r"},
        {"role": "tool", "tool_call_id": "c2", "content": "s"},
        {"role": "assistant", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "c"},
    ]


async def test_a_whole_answer_can_be_sent_back():
    engine = scripted(f"<think>\nHm.\n</think>\n\nLet me look.\n{CALL}")
    client = client_of(engine)
    first = (await client.post(PATH, body(tools=[TOOL]))).json()
    result = {"type": "function_call_output", "call_id": first["output"][2]["call_id"], "output": "sun"}
    ask = {"role": "user", "content": "hi"}
    by_hand = await client.post(PATH, body(input=[ask, *first["output"], result], store=False))
    assert by_hand.status_code == 200, by_hand.text
    by_id = await client.post(PATH, body(input=[result], previous_response_id=first["id"]))
    assert by_id.json()["previous_response_id"] == first["id"]
    assert engine.requests[1].prompt == engine.requests[2].prompt


async def test_instructions_are_not_carried_over(client, engine):
    first = (await client.post(PATH, body(instructions="A."))).json()
    await client.post(PATH, body(instructions="B.", previous_response_id=first["id"], input="more"))
    text = first["output"][0]["content"][0]["text"]
    prompt = bytes(engine.requests[1].prompt).decode()
    assert prompt == f"<system>B.\n<user>hi\n<assistant>{text}\n<user>more\n<assistant>"


async def test_truncation(client, engine):
    engine.max_model_len = 200
    engine.script = lambda prompt, choice: "x"
    turns = [
        {"role": "user" if i % 2 == 0 else "assistant", "content": f"{i} " + "y" * 30} for i in range(21)
    ]
    fields = body(instructions="S.", input=turns, max_output_tokens=20)
    status, error = await client.error(PATH, fields)
    assert (status, error["code"]) == (400, "context_length_exceeded")
    assert error["param"] in ("input", "max_output_tokens")
    assert (await client.post(PATH, fields | {"truncation": "auto"})).status_code == 200
    prompt = bytes(engine.requests[0].prompt).decode()
    assert prompt.startswith("<system>S.\n<user>18 ")
    assert prompt.endswith("<user>20 " + "y" * 30 + "\n<assistant>")
    status, error = await client.error(PATH, body(input="y" * 300, truncation="auto"))
    assert (status, error["param"]) == (400, "input")


async def test_allowed_tools():
    engine = scripted("Hi.")
    tools = [TOOL, TOOL | {"name": "other"}]
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "other"}]}
    response = await client_of(engine).post(PATH, body(tools=tools, tool_choice=choice))
    assert response.json()["tool_choice"] == choice
    assert b"other <tool_call>" in bytes(engine.requests[0].prompt)
    await client_of(engine).post(PATH, body(tools=tools, tool_choice="none"))
    assert b"tool_call" not in bytes(engine.requests[1].prompt)


# --- kept responses


async def test_get_and_delete(client):
    made = (await client.post(PATH, body())).json()
    assert (await client.http.get(f"{PATH}/{made['id']}")).json() == made
    assert (
        await client.http.get(f"{PATH}/{made['id']}?include[]=message.output_text.logprobs")
    ).json() == made
    gone = await client.http.delete(f"{PATH}/{made['id']}")
    assert gone.json() == {"id": made["id"], "object": "response", "deleted": True}
    for method in ("GET", "DELETE"):
        response = await client.http.request(method, f"{PATH}/{made['id']}")
        assert (response.status_code, response.json()["error"]["code"]) == (404, "response_not_found")
    streamed = (await events(client, body()))[-1]["response"]
    assert (await client.http.get(f"{PATH}/{streamed['id']}")).json() == streamed


async def test_store_false_keeps_nothing(app, client):
    made = (await client.post(PATH, body(store=False))).json()
    assert (await client.http.get(f"{PATH}/{made['id']}")).status_code == 404
    status, error = await client.error(PATH, body(previous_response_id=made["id"]))
    assert (status, error["param"]) == (404, "previous_response_id")
    assert len(app.responses) == 0


async def test_lines_of_a_batch_are_not_kept(app):
    answer = await line.ask(app, PATH, json.dumps(body()).encode(), "me", "batch-1")
    assert answer.status == 200
    assert json.loads(b"".join(answer.parts))["store"] is False
    assert len(app.responses) == 0


async def test_input_items(client):
    first = (
        await client.post(PATH, body(input=[{"role": "user", "content": str(i)} for i in range(3)]))
    ).json()
    second = (await client.post(PATH, body(input="more", previous_response_id=first["id"]))).json()
    path = f"{PATH}/{second['id']}/input_items"
    whole = (await client.http.get(path, params={"order": "asc"})).json()
    texts = [item["content"][0]["text"] for item in whole["data"]]
    assert texts == ["0", "1", "2", first["output"][0]["content"][0]["text"], "more"]
    assert whole["data"][3] == first["output"][0]
    assert (whole["object"], whole["has_more"]) == ("list", False)
    assert (whole["first_id"], whole["last_id"]) == (whole["data"][0]["id"], whole["data"][-1]["id"])
    page = (await client.http.get(path, params={"limit": 2})).json()
    assert [item["id"] for item in page["data"]] == [item["id"] for item in reversed(whole["data"])][:2]
    assert page["has_more"]
    rest = (await client.http.get(path, params={"limit": 100, "after": page["last_id"]})).json()
    assert len(rest["data"]) == 3
    for query in ("limit=0", "limit=101", "order=x", "after=nope", "what=1"):
        response = await client.http.get(f"{path}?{query}")
        assert (response.status_code, response.json()["error"]["param"]) == (400, query.partition("=")[0])


async def test_each_key_has_its_own(engine):
    client = Client(build_app(engine, ServerSettings.with_keys(["one", "two"], share_prefix_cache=True)))
    made = (await client.post(PATH, body(), authorization="Bearer one")).json()
    for key, status in (("one", 200), ("two", 404)):
        headers = {"authorization": f"Bearer {key}"}
        assert (await client.http.get(f"{PATH}/{made['id']}", headers=headers)).status_code == status
        response = await client.post(PATH, body(previous_response_id=made["id"]), **headers)
        assert response.status_code == status


async def test_the_store_is_bounded(engine):
    engine.script = lambda prompt, choice: "x" * 100
    app = build_app(engine, ServerSettings(limits=Limits(responses=4)))
    client = Client(app)
    ids = [(await client.post(PATH, body())).json()["id"] for _ in range(4)]
    await client.http.get(f"{PATH}/{ids[0]}")  # used: the second one is the oldest now
    await client.post(PATH, body())
    found = [(await client.http.get(f"{PATH}/{i}")).status_code for i in ids]
    assert found == [200, 404, 200, 200]
    app = build_app(engine, ServerSettings(limits=Limits(response_bytes=20_000)))
    client = Client(app)
    for _ in range(20):
        await client.post(PATH, body(input="y" * 1500))
    assert 1 < len(app.responses) < 15


# --- in the background


async def until_over(client: Client, response_id: str) -> dict:
    while True:
        response = (await client.http.get(f"{PATH}/{response_id}")).json()
        if response["status"] not in ("queued", "in_progress"):
            return response
        await asyncio.sleep(0.005)


async def test_background(app, client, engine):
    engine.delay = 0.001
    started = (await client.post(PATH, body(background=True))).json()
    assert (started["status"], started["background"], started["output"]) == ("queued", True, [])
    status, error = await client.error(PATH, body(previous_response_id=started["id"]))
    assert (status, error["param"]) == (400, "previous_response_id")
    over = await until_over(client, started["id"])
    whole = (await client.post(PATH, body())).json()
    assert over["status"] == "completed"
    assert without_ids(over["output"]) == without_ids(whole["output"])
    assert not app.live
    cancelled = (await client.post(f"{PATH}/{started['id']}/cancel", {})).json()
    assert cancelled == over, "what has ended stays as it is"


async def test_background_streams(client, engine):
    engine.delay = 0.001
    stream = await events(client, body(background=True))
    assert [event["type"] for event in stream[:3]] == [
        "response.created", "response.queued", "response.in_progress",
    ]  # fmt: skip
    made = stream[-1]["response"]
    folded(stream)
    for after in (-1, 0, 5, len(stream) - 1, 10_000):
        text = (await client.http.get(f"{PATH}/{made['id']}?stream=true&starting_after={after}")).text
        assert read_events(text) == stream[after + 1 :]
    whole = (await client.post(PATH, body())).json()
    response = await client.http.get(f"{PATH}/{whole['id']}?stream=true")
    assert (response.status_code, response.json()["error"]["param"]) == (400, "stream")


async def test_background_can_be_followed_from_the_middle(client, engine):
    engine.delay, engine.script = 0.001, lambda prompt, choice: "x" * 50
    started = (await client.post(PATH, body(background=True))).json()
    texts = await asyncio.gather(
        *(client.http.get(f"{PATH}/{started['id']}?stream=true&starting_after={n}") for n in (-1, 20))
    )
    first, second = (read_events(text.text) for text in texts)
    assert first[-1]["type"] == "response.completed"
    assert first[21:] == second


@pytest.mark.parametrize("how", ["cancel", "delete"])
async def test_background_can_be_ended(app, client, engine, how):
    engine.delay, engine.script = 0.005, lambda prompt, choice: "x" * 1000
    started = (await client.post(PATH, body(background=True))).json()
    while not engine.running:
        await asyncio.sleep(0.001)
    follower = asyncio.ensure_future(client.http.get(f"{PATH}/{started['id']}?stream=true"))
    await asyncio.sleep(0.03)
    if how == "cancel":
        answer = (await client.post(f"{PATH}/{started['id']}/cancel", {})).json()
        assert answer["status"] == "cancelled"
    else:
        assert (await client.http.delete(f"{PATH}/{started['id']}")).json()["deleted"]
    assert engine.running == 0
    events = read_events((await asyncio.wait_for(follower, 1)).text)
    assert (events[-1]["type"], events[-1]["code"]) == ("error", "response_cancelled")
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert not app.live
    whole = (await client.post(PATH, body(max_output_tokens=1))).json()
    assert (await client.post(f"{PATH}/{whole['id']}/cancel", {})).status_code == 400


async def test_background_that_fails(client, engine):
    engine.fail_after = 3
    started = (await client.post(PATH, body(background=True))).json()
    over = await until_over(client, started["id"])
    assert (over["status"], over["error"]["code"]) == ("failed", "server_error")
    assert "secret" not in over["error"]["message"]
    events = read_events((await client.http.get(f"{PATH}/{started['id']}?stream=true")).text)
    assert events[-1]["type"] == "response.failed"


async def test_background_ends_with_the_server(app, client, engine):
    engine.delay, engine.script = 0.005, lambda prompt, choice: "x" * 1000
    started = (await client.post(PATH, body(background=True))).json()
    while not engine.running:
        await asyncio.sleep(0.001)
    assert app.live, "draining waits for it"
    app.stop_live()
    over = await until_over(client, started["id"])
    assert over["status"] == "failed"
    assert "shutting down" in over["error"]["message"]
    assert engine.running == 0


async def test_too_many_in_the_background(engine):
    engine.delay, engine.script = 0.005, lambda prompt, choice: "x" * 1000
    settings = ServerSettings.with_keys(["a", "b"], limits=Limits(key_background=2))
    app = build_app(engine, settings)
    client = Client(app)
    client.http.headers["authorization"] = "Bearer a"
    ids = [(await client.post(PATH, body(background=True))).json()["id"] for _ in range(2)]
    response = await client.post(PATH, body(background=True))
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    other = await client.post(PATH, body(background=True), authorization="Bearer b")
    assert other.status_code == 200, "keys do not count each other's"
    waited_for = await client.post(PATH, body(max_output_tokens=2))
    assert waited_for.status_code == 200, "nor what is not in the background"
    await client.post(f"{PATH}/{other.json()['id']}/cancel", {}, authorization="Bearer b")
    for response_id in ids:
        await client.post(f"{PATH}/{response_id}/cancel", {})
    assert engine.running == 0
    assert (await client.post(PATH, body(background=True))).status_code == 200
    app.stop_live()


# --- errors


async def test_failure_within_a_stream(client, engine, caplog):
    engine.fail_after = 3
    response = await client.post(PATH, body(stream=True), x_request_id="find-me")
    stream = read_events(response.text)
    assert stream[-1]["type"] == "response.failed"
    assert stream[-1]["response"]["status"] == "failed"
    assert stream[-1]["response"]["error"]["code"] == "server_error"
    assert "secret" not in response.text
    assert "secret internals" in caplog.text
    engine.fail_after = 0
    assert (await client.post(PATH, body(stream=True))).status_code == 500
    engine.fail_after = 2
    status, error = await client.error(PATH, body())
    assert (status, error["code"]) == (500, "internal_error")


async def test_stop_within_a_stream(app, client, engine):
    engine.delay, engine.script = 0.005, lambda prompt, choice: "x" * 1000
    stream = asyncio.ensure_future(client.post(PATH, body(stream=True)))
    while not engine.requests or engine.requests[0].steps < 3:
        await asyncio.sleep(0.005)
    app.stop_live()
    events = read_events((await stream).text)
    assert (events[-1]["type"], events[-1]["code"]) == ("error", "shutting_down")
    assert events[-1]["sequence_number"] == len(events) - 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [1]}, "input[0]"),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type"),
        ({"input": [{"type": 1}]}, "input[0].type"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": "x", "zz": 1}]}, "input[0].zz"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
         "input[0].content[0].type"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"}]},
         "input[0].arguments"),
        ({"input": "x" * 5000}, "input"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 5000}, "max_output_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
        ({"tools": [TOOL]}, "tools"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
        ({"reasoning": {"effort": "x"}}, "reasoning.effort"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"background": True, "store": False}, "background"),
        ({"previous_response_id": "resp_nope"}, "previous_response_id"),
        ({"metadata": {"a": "x" * 600}}, "metadata"),
        ({"include": ["x"]}, "include[0]"),
        ({"chat_template_kwargs": {"a": 1}}, "chat_template_kwargs"),
        ({"conversation": "x"}, "conversation"),
        ({"prompt": {"id": "x"}}, "prompt"),
        ({"priority": 2**31}, "priority"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named(client, engine, fields, param):
    status, error = await client.error(PATH, body(**fields))
    assert (status, error["param"]) == (404 if param == "previous_response_id" else 400, param), error
    assert param.split("[")[0] in error["message"]
    assert (await client.post(PATH, body())).status_code == 200
    assert engine.running == 0
