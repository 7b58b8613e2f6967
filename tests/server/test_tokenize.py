"""/tokenize and /detokenize over a scripted engine."""

from __future__ import annotations

import random

import pytest

from tests.server.test_output_format import TEMPLATE, TOOL, client_of, scripted

HI = [{"role": "user", "content": "hi"}]


async def test_a_prompt(client):
    answer = (await client.post("/tokenize", {"prompt": "aé"})).json()
    assert answer == {"count": 3, "max_model_len": 2048, "tokens": [97, 0xC3, 0xA9]}
    answer = (await client.post("/tokenize", {"prompt": "ab", "return_token_strs": True})).json()
    assert answer["token_strs"] == ["a", "b"]
    assert (await client.post("/tokenize", {"prompt": ""})).json()["count"] == 0


async def test_messages_as_chat_has_them():
    engine = scripted("Hi.", TEMPLATE)
    client = client_of(engine)
    for fields in (
        {},
        {"tools": [TOOL]},
        {"add_generation_prompt": False},
        {"chat_template_kwargs": {"enable_thinking": True}},
    ):
        tokens = (await client.post("/tokenize", {"messages": HI} | fields)).json()["tokens"]
        await client.post("/v1/chat/completions", {"messages": HI} | fields)
        assert tokens == engine.requests[-1].prompt
    assert len(engine.requests) == 4


async def test_what_is_too_long_can_be_counted(client):
    for fields in ({"prompt": "x" * 9000}, {"messages": [{"role": "user", "content": "x" * 9000}]}):
        answer = (await client.post("/tokenize", fields)).json()
        assert answer["count"] >= 9000 > answer["max_model_len"]


async def test_there_and_back(client, seed):
    rng = random.Random(seed)
    text = "".join(rng.choice("abc éü漢🙂\n") for _ in range(rng.randint(0, 6000)))
    tokens = (await client.post("/tokenize", {"prompt": text})).json()["tokens"]
    assert (await client.post("/detokenize", {"tokens": tokens})).json() == {"prompt": text}


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "x", "messages": HI}, "prompt"),
        ("/tokenize", {"prompt": 1}, "prompt"),
        ("/tokenize", {"prompt": "x", "tools": [TOOL]}, "tools"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"messages": HI, "chat_template_kwargs": {"zz": 1}}, "chat_template_kwargs"),
        ("/tokenize", {"prompt": "x", "what": 1}, "what"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [257]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]"),
    ],
)
async def test_what_is_wrong_is_named(client, path, fields, param):
    status, error = await client.error(path, fields)
    assert (status, error["param"]) == (400, param), error
    good = {"prompt": "x"} if path == "/tokenize" else {"tokens": [97]}
    assert (await client.post(path, good)).status_code == 200
    assert (await client.post(path, good | {"model": "nope"})).status_code == 404
