"""Reasoning and tool calls in /v1/chat/completions, streamed and whole."""

from __future__ import annotations

import json
import random

import openai
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState

from tenon.parse import formats
from tenon.parse.machine import parse
from tenon.server.app import build_app
from tenon.server.settings import ServerSettings
from tests.server.conftest import Client
from tests.server.fake_engine import FakeEngine
from tests.server.serving import serving

PATH = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if tools %}{{ tools[0].function.name }} <tool_call></tool_call> arguments </think>.{% endif %}"
    "{% if reasoning_effort %}effort {{ reasoning_effort }}\n{% endif %}"
    "{% if enable_thinking is defined %}<think>{% if not enable_thinking %}</think>{% endif %}{% endif %}"
)


def body(**fields):
    return {"messages": HI} | fields


def scripted(text: str, template: str = TEMPLATE) -> FakeEngine:
    engine = FakeEngine(lambda prompt, choice: text)
    engine.tokenizer.chat_template = template
    engine.tokenizer.chat_templates = {"default": template}
    return engine


def client_of(engine: FakeEngine, **settings) -> Client:
    return Client(build_app(engine, ServerSettings(**settings), engine.served_model_names))


def folded(events: list[dict]) -> tuple[dict, str]:
    """The message that a stream spells, and why it ended."""
    message: dict = {"content": None, "tool_calls": []}
    reason = None
    for event in events:
        for choice in event["choices"]:
            delta = choice["delta"]
            for name in ("content", "reasoning", "reasoning_content"):
                if delta.get(name):
                    message[name] = (message.get(name) or "") + delta[name]
            for call in delta.get("tool_calls", []):
                if "id" in call:
                    assert call["index"] == len(message["tool_calls"])
                    message["tool_calls"].append(call)
                else:
                    function = message["tool_calls"][call["index"]]["function"]
                    function["arguments"] += call["function"]["arguments"]
            reason = choice["finish_reason"] or reason
    return message, reason


async def test_reasoning_content_and_calls():
    client = client_of(scripted(f"<think>\nHm.\n</think>\n\nLet me look.\n{CALL}"))
    choice = (await client.post(PATH, body(tools=[TOOL]))).json()["choices"][0]
    message = choice["message"]
    assert choice["finish_reason"] == "tool_calls"
    assert (message["reasoning"], message["content"]) == ("Hm.", "Let me look.")
    assert "reasoning_content" not in message
    (call,) = message["tool_calls"]
    assert call["type"] == "function"
    assert call["id"].startswith("call_")
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}


async def test_stream_equals_whole(seed):
    rng = random.Random(seed)
    names = [name for name in formats.names() if formats.load(name).calls or formats.load(name).channels]
    for _ in range(25):
        name = rng.choice(names)
        case = rng.choice(formats.cases(name))
        client = client_of(scripted(case.text), output_format=name, reasoning_content=True)
        fields = body(tools=list(case.tools or []), logprobs=True, return_token_ids=True)
        whole = (await client.post(PATH, fields)).json()["choices"][0]
        events = await client.events(PATH, fields)
        message, reason = folded(events)
        expected = whole["message"]
        assert message["content"] == (expected["content"] or None), (name, case.name)
        assert message.get("reasoning") == expected.get("reasoning") == expected.get("reasoning_content")
        calls = [call["function"] for call in message["tool_calls"]]
        assert calls == [call["function"] for call in expected.get("tool_calls", [])]
        assert reason == whole["finish_reason"]
        parsed = parse(formats.load(name), case.text, case.tools)
        assert [call["arguments"] for call in calls] == [call.arguments for call in parsed.tool_calls]
        parts = [choice for event in events for choice in event["choices"]]
        assert [i for part in parts for i in part.get("token_ids", [])] == whole["token_ids"]
        logprobs = [p for part in parts for p in (part["logprobs"] or {}).get("content", [])]
        assert logprobs == whole["logprobs"]["content"]


async def test_only_a_call():
    message = (await client_of(scripted(CALL)).post(PATH, body(tools=[TOOL]))).json()["choices"][0]["message"]
    assert message["content"] is None


async def test_a_cut_off_call_ends_by_length():
    client = client_of(scripted(CALL))
    choice = (await client.post(PATH, body(tools=[TOOL], max_tokens=CALL.index(': "Paris')))).json()[
        "choices"
    ][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"city"'


@pytest.mark.parametrize("fields", [{}, {"tools": []}, {"tools": [TOOL], "tool_choice": "none"}])
async def test_without_tools_a_call_is_content(fields):
    engine = scripted(CALL)
    message = (await client_of(engine).post(PATH, body(**fields))).json()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": CALL}
    assert b"get_weather" not in bytes(engine.requests[0].prompt)


async def test_tools_reach_the_template():
    engine = scripted("Hi.")
    await client_of(engine).post(PATH, body(tools=[TOOL], tool_choice="auto"))
    assert b"get_weather <tool_call>" in bytes(engine.requests[0].prompt)


async def test_the_alias_can_be_switched_on():
    client = client_of(scripted("<think>Hm.</think>Hi."), reasoning_content=True)
    message = (await client.post(PATH, body())).json()["choices"][0]["message"]
    assert message["reasoning"] == message["reasoning_content"] == "Hm."


async def test_thinking_by_the_prompt():
    engine = scripted("Hm.</think>Hi.")
    client = client_of(engine)
    for thinks, reasoning in ((True, "Hm."), (False, None)):
        fields = body(chat_template_kwargs={"enable_thinking": thinks})
        message = (await client.post(PATH, fields)).json()["choices"][0]["message"]
        assert message.get("reasoning") == reasoning
        assert message["content"] == ("Hi." if thinks else "Hm.</think>Hi.")


async def test_reasoning_effort():
    engine = scripted("Hi.")
    client = client_of(engine)
    for effort, tail in (("high", b"effort high\n<think>"), ("none", b"effort none\n<think></think>")):
        response = await client.post(PATH, body(reasoning_effort=effort))
        assert response.status_code == 200, response.text
        assert bytes(engine.requests[-1].prompt).endswith(tail)
    status, error = await client.error(PATH, body(reasoning_effort="extreme"))
    assert (status, error["param"]) == (400, "reasoning_effort")


async def test_template_variables_are_allow_listed():
    engine = scripted("Hi.", TEMPLATE + "{{ mood }}")
    status, error = await client_of(engine).error(PATH, body(chat_template_kwargs={"mood": "glad"}))
    assert (status, error["param"]) == (400, "chat_template_kwargs")
    client = client_of(engine, template_variables=("mood", "messages"))
    assert (await client.post(PATH, body(chat_template_kwargs={"mood": "glad"}))).status_code == 200
    assert bytes(engine.requests[-1].prompt).endswith(b"glad")
    status, error = await client.error(PATH, body(chat_template_kwargs={"messages": []}))
    assert (status, error["param"]) == (400, "chat_template_kwargs")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"tools": [TOOL, {"type": "custom"}]}, "tools[1].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tools": [{"function": {"name": "f", "parameters": 1}}]}, "tools[0].function.parameters"),
        ({"tools": [{"function": {"name": "f"}}] * 1025}, "tools"),
        ({"tools": "x"}, "tools"),
        ({"tools": [1]}, "tools[0]"),
        ({"tool_choice": 1}, "tool_choice"),
        ({"chat_template_kwargs": 1}, "chat_template_kwargs"),
        ({"reasoning_effort": 1}, "reasoning_effort"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named(fields, param):
    status, error = await client_of(scripted("Hi.")).error(PATH, body(**fields))
    assert (status, error["param"]) == (400, param), error


@pytest.mark.parametrize(
    ("special", "skip"), [("<tool_call>", False), ("_call>", False), ("<|other|>", True)]
)
async def test_markers_that_are_special_tokens_are_kept(special, skip):
    engine = scripted("Hi.")
    text = engine.tokenizer.token_text
    engine.tokenizer.special_ids = frozenset({7, 256})
    engine.tokenizer.token_text = lambda token: special if token == 7 else text(token)
    await client_of(engine).post(PATH, body())
    assert engine.requests[0].params.skip_special_tokens is skip


HARMONY = "<|start|><|channel|><|message|>"
THOUGHT = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"


@pytest.mark.parametrize("end", ["<|call|>", "<|return|>"])
async def test_an_end_token_that_is_no_text_ends_a_harmony_message(end):
    """The model's end tokens are markers of the format, and their text is not part of the output."""
    call = '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}'
    text = call if end == "<|call|>" else "<|channel|>final<|message|>Paris."
    engine = scripted(THOUGHT + text, TEMPLATE + HARMONY)
    engine.tokenizer.token_bytes = lambda token: end.encode() if token == 256 else bytes([token])
    client = client_of(engine)
    fields = body(tools=[TOOL])
    whole = (await client.post(PATH, fields)).json()["choices"][0]
    streamed, reason = folded(await client.events(PATH, fields))
    assert engine.requests[0].params.skip_special_tokens is False  # detected as harmony
    assert whole["finish_reason"] == reason == ("tool_calls" if end == "<|call|>" else "stop")
    for message in (whole["message"], streamed):
        assert message["reasoning"] == "Hm."
        if end == "<|call|>":
            (made,) = message["tool_calls"]
            assert made["function"]["name"] == "get_weather"
            assert json.loads(made["function"]["arguments"]) == {"city": "Paris"}
            assert not message["content"]
        else:
            assert message["content"] == "Paris."
            assert not message.get("tool_calls")


async def test_openai_client_streams_calls():
    engine = scripted(f"<think>Hm.</think>{CALL}{CALL}")
    async with (
        serving(engine) as (url, _),
        openai.AsyncOpenAI(base_url=url + "/v1", api_key="x", max_retries=0) as api,
    ):
        state = ChatCompletionStreamState()  # the client's own accumulation of a stream
        async for chunk in await api.chat.completions.create(
            model="fake", messages=HI, tools=[TOOL], stream=True
        ):
            state.handle_chunk(chunk)
        answer = state.get_final_completion()
        whole = await api.chat.completions.create(model="fake", messages=HI, tools=[TOOL])
    for completion in (answer, whole):
        choice = completion.choices[0]
        assert choice.finish_reason == "tool_calls"
        assert [json.loads(c.function.arguments) for c in choice.message.tool_calls] == [
            {"city": "Paris"}
        ] * 2
        assert len({c.id for c in choice.message.tool_calls}) == 2


async def test_thinking_that_a_continued_message_has_begun():
    client = client_of(scripted("m.</think>Hi."))
    for start, reasoning in (("<think>H", "m."), ("<think>Hm.</think>Well, ", None)):
        messages = [*HI, {"role": "assistant", "content": start}]
        response = await client.post(PATH, {"messages": messages, "continue_final_message": True})
        message = response.json()["choices"][0]["message"]
        assert message.get("reasoning") == reasoning
        assert message["content"] == ("Hi." if reasoning else "m.</think>Hi.")
