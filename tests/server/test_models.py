"""Several engines behind one app, and how long a call keeps its model."""

from __future__ import annotations

import pytest

from tenon.server.app import App
from tenon.server.errors import ApiError
from tenon.server.models import Fixed, Models
from tenon.server.settings import ServerSettings
from tenon.server.slot import Lease
from tests.server.conftest import Client
from tests.server.fake_engine import FakeEngine

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "hi"}]}


class Counted(Fixed):
    """Counts the leases that are open."""

    def __init__(self, engine: FakeEngine) -> None:
        super().__init__(engine)
        self.open = 0

    async def lease(self, name: str, *, background: bool = False) -> Lease:
        engine = (await super().lease(name, background=background)).engine
        self.open += 1
        return Lease(name, engine, self.close)

    def close(self) -> None:
        self.open -= 1


@pytest.fixture
def slots() -> dict[str, Counted]:
    def named(name: str) -> Counted:
        engine = FakeEngine(lambda prompt, choice: f"I am {name}.")
        engine.model_name = name
        return Counted(engine)

    return {name: named(name) for name in ("a", "b")}


@pytest.fixture
async def client(slots):
    client = Client(App(Models(dict(slots)), ServerSettings()))
    yield client
    await client.http.aclose()


async def test_requests_are_routed_by_name(client, slots):
    for asked, answered in ((None, "a"), ("a", "a"), ("b", "b")):
        answer = (await client.post(CHAT, BODY | ({"model": asked} if asked else {}))).json()
        assert answer["model"] == answered
        assert answer["choices"][0]["message"]["content"] == f"I am {answered}."
    status, error = await client.error(CHAT, BODY | {"model": "c"})
    assert (status, error["code"]) == (404, "model_not_found")
    assert all(slot.open == 0 for slot in slots.values())


async def test_a_call_keeps_its_model_until_its_end(client, slots):
    seen = []
    slots["b"]._engine.script = lambda prompt, choice: seen.append(slots["b"].open) or "x"
    await client.post(CHAT, BODY | {"model": "b"})
    await client.events(CHAT, BODY | {"model": "b"})
    await client.error(CHAT, BODY | {"model": "b", "temperature": -1})
    assert seen == [1, 1]
    assert slots["b"].open == 0


async def test_a_lease_is_closed_once(slots):
    models = Models(dict(slots))
    lease = await models.lease("b")
    assert (lease.name, lease.engine, slots["b"].open) == ("b", slots["b"]._engine, 1)
    lease.close()
    lease.close()
    assert slots["b"].open == 0


async def test_one_that_is_gone_does_not_take_the_others_along(client, slots):
    slots["b"]._engine.errored = True
    status, error = await client.error(CHAT, BODY | {"model": "b"})
    assert (status, error["code"]) == (503, "engine_dead")
    assert (await client.post(CHAT, BODY)).status_code == 200
    assert (await client.http.get("/ready")).status_code == 200
    states = {card["id"]: card["state"] for card in (await client.http.get("/v1/models")).json()["data"]}
    assert states == {"a": "loaded", "b": "failed"}
    slots["a"]._engine.errored = True
    assert (await client.http.get("/ready")).status_code == 503


async def test_fixed_slots_say_why_not(slots):
    engine = slots["a"]._engine
    engine.ready = False
    with pytest.raises(ApiError) as caught:
        await slots["a"].lease("a")
    assert (caught.value.code, slots["a"].state, slots["a"].stats) == ("model_loading", "loading", None)
    engine.errored = True
    with pytest.raises(ApiError) as caught:
        await slots["a"].lease("a")
    assert (caught.value.code, slots["a"].state) == ("engine_dead", "failed")


async def test_metrics_of_all_models_are_one_family(client):
    for model in ("a", "b"):
        await client.post(CHAT, BODY | {"model": model})
    lines = (await client.http.get("/metrics")).text.splitlines()
    assert len(lines) == len(set(lines))
    for name in ("num_requests_running", "engine_steps_total", "prompt_tokens_total"):
        for model in ("a", "b"):
            assert any(line.startswith(f'tenon:{name}{{model_name="{model}"}}') for line in lines)
        assert sum(line.startswith(f"# TYPE tenon:{name} ") for line in lines) == 1
