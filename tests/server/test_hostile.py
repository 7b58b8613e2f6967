"""Good requests of every protocol with parts replaced by what does not belong there: never a fault."""

from __future__ import annotations

import copy
import random

import pytest

from tests.server.good_requests import GOOD
from tests.server.test_output_format import TEMPLATE, client_of, scripted

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
