"""POST /v1/completions over a scripted engine."""

from __future__ import annotations

import random

import pytest

from tests.server.fake_engine import echo_script

PATH = "/v1/completions"


async def post(client, **fields):
    response = await client.post(PATH, fields)
    assert response.status_code == 200, response.text
    return response.json()


async def test_whole_answer(client):
    answer = await post(client, model="fake", prompt="ab", max_tokens=1000)
    text = echo_script("ab", 0)
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["choices"] == [
        {"index": 0, "text": text, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    ]
    assert answer["usage"]["prompt_tokens"] == 2


async def test_default_max_tokens(client, engine):
    answer = await post(client, prompt="ab")
    assert answer["usage"]["completion_tokens"] <= 16
    assert engine.requests[0].params.max_tokens == 16
    await post(client, prompt="a" * (engine.max_model_len - 5))
    assert engine.requests[1].params.max_tokens == 5


@pytest.mark.parametrize("prompt", ["ab", ["ab"], [97, 98], [[97, 98]]])
async def test_shapes_of_prompt(client, prompt):
    answer = await post(client, prompt=prompt, max_tokens=1000)
    assert answer["choices"][0]["text"] == echo_script("ab", 0)


async def test_several_prompts_and_choices(client):
    answer = await post(client, prompt=["a", "bb", "ccc"], n=2, max_tokens=1000)
    texts = [echo_script(p, c) for p in ("a", "bb", "ccc") for c in (0, 1)]
    assert [c["index"] for c in answer["choices"]] == list(range(6))
    assert [c["text"] for c in answer["choices"]] == texts
    assert answer["usage"]["prompt_tokens"] == 6
    assert answer["usage"]["completion_tokens"] == sum(len(t.encode()) + 1 for t in texts)


async def test_stop_reason(client, engine):
    engine.script = lambda prompt, choice: "one two three"
    answer = await post(client, prompt="a", stop=[" t"])
    assert answer["choices"][0]["text"] == "one"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["choices"][0]["stop_reason"] == " t"


async def test_logprobs(client, engine):
    engine.script = lambda prompt, choice: "xy"
    logprobs = (await post(client, prompt="q", logprobs=2))["choices"][0]["logprobs"]
    assert logprobs == {
        "tokens": ["x", "y", "<eos>"],
        "token_logprobs": [-3.0] * 3,
        "top_logprobs": [{"a": -1.0, "b": -2.0, t: -3.0} for t in ("x", "y", "<eos>")],
        "text_offset": [0, 1, 2],
    }


async def test_echo(client, engine):
    engine.script = lambda prompt, choice: "xy"
    answer = await post(client, prompt=["pq", "r"], echo=True)
    assert [c["text"] for c in answer["choices"]] == ["pqxy", "rxy"]
    assert (await post(client, prompt=[112, 113], echo=True))["choices"][0]["text"] == "pqxy"


async def test_echo_with_logprobs(client, engine):
    engine.script = lambda prompt, choice: "xy"
    choice = (await post(client, prompt="pq", echo=True, logprobs=1))["choices"][0]
    assert choice["logprobs"]["tokens"] == ["p", "q", "x", "y", "<eos>"]
    assert choice["logprobs"]["token_logprobs"] == [None, -3.0, -3.0, -3.0, -3.0]
    assert choice["logprobs"]["top_logprobs"][0] is None
    assert choice["logprobs"]["text_offset"] == [0, 1, 2, 3, 4]
    assert "prompt_logprobs" not in choice


async def test_echo_of_the_prompt_alone(client):
    """How evaluation tools score a text: no output, but logprobs of the prompt."""
    answer = await post(client, prompt="pq", echo=True, logprobs=1, max_tokens=0)
    choice = answer["choices"][0]
    assert choice["text"] == "pq"
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"]["token_logprobs"] == [None, -3.0]
    assert answer["usage"]["completion_tokens"] == 0
    assert answer["usage"]["total_tokens"] == 2


async def test_prompt_logprobs_and_token_ids(client):
    choice = (await post(client, prompt="pq", prompt_logprobs=0, return_token_ids=True))["choices"][0]
    assert choice["prompt_token_ids"] == [112, 113]
    assert choice["prompt_logprobs"][0] is None
    assert choice["prompt_logprobs"][1]["113"]["rank"] == 3
    assert bytes(t for t in choice["token_ids"] if t < 256).decode(errors="ignore") in choice["text"]


async def test_stream_equals_whole(client, seed):
    rng = random.Random(seed)
    for _ in range(20):
        fields = {
            "prompt": [rng.choice(["a", "bc", "dé"]) for _ in range(rng.randint(1, 3))],
            "n": rng.randint(1, 3),
            "echo": rng.choice([True, False]),
            "logprobs": rng.choice([None, 0, 3]),
            "prompt_logprobs": rng.choice([None, 1]),
            "max_tokens": rng.randint(1, 70),
            "stop": rng.choice([None, "b"]),
            "return_token_ids": rng.choice([True, False]),
        }
        whole = await post(client, **fields)
        events = await client.events(PATH, fields | {"stream_options": {"include_usage": True}})
        assert events[-1]["usage"] == whole["usage"]
        choices: dict[int, dict] = {}
        for event in events:
            for part in event["choices"]:
                known = choices.setdefault(part["index"], {"text": ""})
                known["text"] += part.pop("text")
                if part["logprobs"]:
                    lists = known.setdefault("logprobs", {name: [] for name in part["logprobs"]})
                    for name, values in part["logprobs"].items():
                        lists[name] += values
                known.setdefault("token_ids", []).extend(part.pop("token_ids", []))
                known |= {k: v for k, v in part.items() if v is not None and k != "logprobs"}
        for choice in whole["choices"]:
            assert {"token_ids": []} | {k: v for k, v in choice.items() if v is not None} == choices[
                choice["index"]
            ]


async def test_best_of(client):
    assert (await client.post(PATH, {"prompt": "a", "best_of": 1})).status_code == 200
    status, error = await client.error(PATH, {"prompt": "a", "best_of": 3})
    assert (status, error["param"]) == (400, "best_of")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a", [97]]}, "prompt"),
        ({"prompt": ["a", 97]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [257]}, "prompt"),
        ({"prompt": [2**70]}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a"] * 1025}, "prompt"),
        ({"prompt": ["a"] * 100, "n": 20}, "n"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "x" * 3000}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 2048}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"stream_options": {}}, "stream_options"),
    ],
)
async def test_bad_requests(client, fields, field):
    status, error = await client.error(PATH, {"prompt": "a"} | fields)
    assert (status, error["param"], error["type"]) == (400, field, "invalid_request_error")
    assert (await client.post(PATH, {"prompt": "a"})).status_code == 200
