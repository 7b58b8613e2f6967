"""POST /v1/chat/completions over a scripted engine."""

from __future__ import annotations

import random

import pytest

from tests.server.fake_engine import echo_script

PATH = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]
PROMPT = "<user>hi\n<assistant>"


def body(**fields):
    return {"messages": HI} | fields


async def test_whole_answer(client, engine):
    response = await client.post(PATH, body(model="fake"))
    answer = response.json()
    assert response.status_code == 200
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == "fake"
    text = echo_script(PROMPT, 0)
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"content": text, "role": "assistant"},
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
        }
    ]
    generated = len(text.encode()) + 1
    assert answer["usage"] == {
        "prompt_tokens": len(PROMPT),
        "completion_tokens": generated,
        "total_tokens": len(PROMPT) + generated,
        "prompt_tokens_details": {"cached_tokens": len(PROMPT) // 2},
    }


async def test_default_max_tokens_is_the_rest_of_the_context(client, engine):
    await client.post(PATH, body())
    assert engine.requests[0].params.max_tokens == engine.max_model_len - len(PROMPT)


async def test_stream_shape(client):
    events = await client.events(PATH, body(max_tokens=3))
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len({e["id"] for e in events}) == 1
    assert {e["object"] for e in events} == {"chat.completion.chunk"}
    assert [e["choices"][0]["finish_reason"] for e in events][-1] == "length"
    assert all("usage" not in e for e in events)


async def test_stream_usage(client):
    events = await client.events(PATH, body(max_tokens=3, stream_options={"include_usage": True}))
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 3
    assert all(e["usage"] is None for e in events[:-1])


async def test_continuous_usage(client):
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = await client.events(PATH, body(max_tokens=3, stream_options=options))
    counts = [e["usage"]["completion_tokens"] for e in events]
    assert counts == sorted(counts)
    assert counts[-1] == 3


def folded(events: list[dict]) -> dict[int, dict]:
    """What a client makes of a stream."""
    choices: dict[int, dict] = {}
    for event in events:
        for part in event["choices"]:
            choice = choices.setdefault(part["index"], {"content": "", "logprobs": [], "ids": []})
            choice["content"] += part["delta"].get("content", "")
            choice["logprobs"] += (part["logprobs"] or {}).get("content", [])
            choice["ids"] += part.get("token_ids", [])
            if part["finish_reason"]:
                assert "finish" not in choice, "two ends"
                choice["finish"] = (part["finish_reason"], part["stop_reason"])
    return choices


async def test_stream_equals_whole(client, seed):
    rng = random.Random(seed)
    for _ in range(20):
        fields = {
            "n": rng.randint(1, 4),
            "max_tokens": rng.randint(1, 80),
            "logprobs": rng.choice([True, False]),
            "stop": rng.choice([None, "a", ["bc", "🙂"], "é"]),
            "return_token_ids": True,
        }
        if fields["logprobs"]:
            fields["top_logprobs"] = rng.randint(0, 5)
        whole = (await client.post(PATH, body(**fields))).json()
        usage = {"include_usage": True}
        events = await client.events(PATH, body(**fields, stream_options=usage))
        stream = folded(events)
        assert len(stream) == fields["n"]
        for choice in whole["choices"]:
            part = stream[choice["index"]]
            assert part["content"] == choice["message"]["content"]
            assert part["finish"] == (choice["finish_reason"], choice["stop_reason"])
            assert part["ids"] == choice["token_ids"]
            assert part["logprobs"] == ((choice["logprobs"] or {}).get("content") or [])
        assert events[-1]["usage"] == whole["usage"]


async def test_logprobs(client, engine):
    engine.script = lambda prompt, choice: "xé"
    answer = (await client.post(PATH, body(logprobs=True, top_logprobs=2))).json()
    content = answer["choices"][0]["logprobs"]["content"]
    assert [c["bytes"] for c in content] == [[120], [0xC3], [0xA9], list(b"<eos>")]
    assert content[0]["token"] == "x"
    assert content[0]["logprob"] == -3.0
    assert [(t["token"], t["logprob"]) for t in content[0]["top_logprobs"]] == [("a", -1.0), ("b", -2.0)]


async def test_logprobs_without_top_and_minus_infinity(client, engine):
    engine.script = lambda prompt, choice: "x"
    answer = (await client.post(PATH, body(logprobs=True))).json()
    assert answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []
    answer = (await client.post(PATH, body(logprobs=True, top_logprobs=4))).json()
    assert answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"][-1]["logprob"] == -9999.0


async def test_prompt_logprobs(client):
    answer = (await client.post(PATH, body(prompt_logprobs=1))).json()
    assert answer["prompt_logprobs"][0] is None
    assert len(answer["prompt_logprobs"]) == len(PROMPT)
    assert answer["prompt_logprobs"][1][str(ord(PROMPT[1]))]["logprob"] == -3.0
    answer = (await client.post(PATH, body(prompt_logprobs=3))).json()
    assert answer["prompt_logprobs"][1]["99"]["logprob"] == -9999.0  # JSON has no -inf


async def test_sampling_fields_reach_the_engine(client, engine):
    fields = {
        "temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "presence_penalty": 0.2,
        "frequency_penalty": 0.3, "repetition_penalty": 1.1, "seed": -5, "min_tokens": 2,
        "stop": ["z"], "stop_token_ids": [3], "include_stop_str_in_output": True, "ignore_eos": True,
        "skip_special_tokens": False,
    }  # fmt: skip
    response = await client.post(
        PATH, body(max_completion_tokens=9, logit_bias={"65": -3}, priority=4, **fields)
    )
    assert response.status_code == 200, response.text
    params = engine.requests[0].params
    fields["seed"] = -5 & (2**64 - 1)
    assert {name: getattr(params, name) for name in fields} == fields
    assert params.max_tokens == 9
    assert params.logit_bias == {65: -3.0}
    assert engine.requests[0].priority == 4


async def test_configured_sampling_defaults(engine):
    from tenon.server.app import build_app
    from tenon.server.settings import ServerSettings
    from tests.server.conftest import Client

    client = Client(build_app(engine, ServerSettings(default_sampling={"temperature": 0.25, "top_p": 0.5})))
    await client.post(PATH, body(top_p=0.75))
    assert (engine.requests[0].params.temperature, engine.requests[0].params.top_p) == (0.25, 0.75)


async def test_text_parts_and_ignored_fields(client, engine):
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    response = await client.post(
        PATH,
        {
            "messages": [{"role": "user", "content": parts, "name": "me"}],
            "user": "u", "store": False, "metadata": {"a": "b"}, "service_tier": "auto", "tools": [],
            "tool_choice": "none", "response_format": {"type": "text"}, "parallel_tool_calls": True,
        },
    )  # fmt: skip
    assert response.status_code == 200, response.text
    assert bytes(engine.requests[0].prompt) == b"<user>h\ni\n<assistant>"


async def test_a_former_answer_can_be_sent_back(client):
    answer = (await client.post(PATH, body(max_tokens=2))).json()["choices"][0]["message"]
    extra = {"refusal": None, "annotations": [], "tool_calls": None, "audio": None, "function_call": None}
    response = await client.post(PATH, {"messages": [*HI, answer | extra, *HI]})
    assert response.status_code == 200, response.text


async def test_generation_prompt_can_be_left_out(client, engine):
    await client.post(PATH, body(add_generation_prompt=False))
    assert bytes(engine.requests[0].prompt) == b"<user>hi\n"


async def test_the_last_message_can_be_continued(client, engine):
    messages = [*HI, {"role": "assistant", "content": "hello th"}]
    await client.post(PATH, {"messages": messages, "continue_final_message": True})
    assert bytes(engine.requests[0].prompt) == b"<user>hi\n<assistant>hello th"
    for more in ({"add_generation_prompt": True}, {"messages": [*HI, {"role": "assistant", "content": ""}]}):
        fields = {"messages": messages, "continue_final_message": True} | more
        status, error = await client.error(PATH, fields)
        assert (status, error["param"]) == (400, "continue_final_message")


async def test_tool_calls_of_the_past_reach_the_template(client, engine):
    engine.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}"
        "{{ c.function.arguments.x }}{% endfor %}{% endfor %}"
    )
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 5}'}}
    messages = [
        *HI,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "six"},
    ]
    response = await client.post(PATH, {"messages": messages})
    assert response.status_code == 200, response.text
    assert bytes(engine.requests[0].prompt) == b"hi5six"


async def test_without_a_template(client, engine):
    engine.tokenizer.chat_templates = {}
    engine.tokenizer.chat_template = None
    status, error = await client.error(PATH, body())
    assert (status, error["param"]) == (400, "messages")


async def test_long_prompts_are_tokenised_in_a_thread(client, engine):
    engine.max_model_len = 100_000
    response = await client.post(PATH, {"messages": [{"role": "user", "content": "x" * 50_000}]})
    assert response.json()["usage"]["prompt_tokens"] == 50_000 + len(PROMPT) - 2


async def test_api_key_makes_the_cache_salt(engine):
    from tenon.server.app import build_app
    from tenon.server.settings import ServerSettings
    from tests.server.conftest import Client

    client = Client(build_app(engine, ServerSettings.with_keys(["one", "two"])))
    for key in ("one", "one", "two"):
        response = await client.post(PATH, body(), authorization=f"Bearer {key}")
        assert response.status_code == 200
    await client.post(PATH, body(cache_salt="mine"), authorization="Bearer one")
    salts = [r.cache_salt for r in engine.requests]
    assert salts[0] == salts[1]
    assert len({salts[0], salts[2], salts[3]}) == 3
    assert all("one" not in salt and salt for salt in salts)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"thinking_token_budget": 5}, "thinking_token_budget"),
        ({"thinking_budget": 5}, "thinking_budget"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"chat_template": "{{ 1 }}"}, "chat_template"),
        ({"chat_template_kwargs": {"a": 1}}, "chat_template_kwargs"),
    ],
)
async def test_what_is_not_supported_says_so(client, fields, field):
    status, error = await client.error(PATH, body(**fields))
    assert (status, error["param"], error["code"]) == (400, field, "not_supported")
    assert field in error["message"]
