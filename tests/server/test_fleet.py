"""Models that come and go behind a server: scripted engines, real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tenon.config import EngineArgs, EngineConfig
from tenon.core.messages import EngineStats, Ready
from tenon.errors import ConfigError, ModelFileError
from tenon.server.fleet import Fleet, make_fleet
from tenon.server.settings import ResidencySettings, RestartSettings
from tests.server.fake_engine import FakeEngine
from tests.server.serving import serving

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
PROMPT = {"prompt": "hi", "max_tokens": 8}


class Garage:
    """Makes engines that start when the test lets them; keeps all it has made."""

    def __init__(self) -> None:
        self.made: list[tuple[str, FakeEngine]] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.broken: dict[str, Exception] = {}
        self.log: list[str] = []

    def make(self, config: EngineConfig) -> FakeEngine:
        name = config.served_model_name[0]
        engine = FakeEngine(lambda prompt, choice: f"I am {name}, whatever you say.")
        engine.ready = False
        engine.model_name = name
        engine.info = Ready(
            max_model_len=2048, num_kv_blocks=1, block_size=32, vocab_size=257, load_seconds=0.0
        )

        async def start() -> None:
            if name in self.gates:
                await self.gates[name].wait()
            await asyncio.sleep(0)
            if name in self.broken:
                raise self.broken[name]
            engine.ready = True
            self.log.append(f"+{name}")

        async def stop() -> None:
            await asyncio.sleep(0)
            assert engine.running == 0 or engine.errored
            engine.ready = False
            self.log.append(f"-{name}")

        engine.start, engine.stop = start, stop
        self.made.append((name, engine))
        return engine

    def last(self, name: str) -> FakeEngine:
        return next(engine for made, engine in reversed(self.made) if made == name)


@pytest.fixture
def garage() -> Garage:
    return Garage()


def configs(*names: str) -> list[EngineConfig]:
    return [EngineArgs(model=name, served_model_name=f"{name},{name}-too").resolve() for name in names]


@asynccontextmanager
async def served(garage: Garage, *names: str, **limits) -> AsyncIterator[tuple[httpx.AsyncClient, Fleet]]:
    fleet = Fleet(configs(*names), garage.make, costs=dict.fromkeys(names, 1), **limits)
    starting = asyncio.ensure_future(fleet.start())
    async with serving(fleet) as (url, app), httpx.AsyncClient(base_url=url, timeout=20) as client:
        if names[0] not in garage.gates:
            await starting
        yield client, fleet
        app.stop_live()
    starting.cancel()
    await fleet.stop()


async def states(client: httpx.AsyncClient) -> dict[str, str]:
    data = (await client.get("/v1/models")).json()["data"]
    return {card["id"]: card["state"] for card in data if not card["id"].endswith("-too")}


async def ask(client: httpx.AsyncClient, model: str, **fields) -> httpx.Response:
    return await client.post(TEXT, json=PROMPT | {"model": model} | fields)


async def test_models_are_loaded_on_demand_and_unloaded_by_use(garage):
    async with served(garage, "a", "b", "c", max_models=2) as (client, _):
        assert await states(client) == {"a": "loaded", "b": "unloaded", "c": "unloaded"}
        for name in ("b-too", "a", "c", "a"):
            answer = (await ask(client, name)).json()
            assert answer["model"] == name
            assert answer["choices"][0]["text"] == f"I am {name[0]}, "
        assert garage.log == ["+a", "+b", "-b", "+c"]
        assert await states(client) == {"a": "loaded", "b": "unloaded", "c": "loaded"}
        cards = {card["id"]: card for card in (await client.get("/v1/models")).json()["data"]}
        assert cards["b"]["max_model_len"] == 2048  # it is known by now
    assert sorted(garage.log[-2:]) == ["-a", "-c"]


async def test_concurrent_first_requests_share_one_load(garage):
    garage.gates["b"] = asyncio.Event()
    async with served(garage, "a", "b") as (client, _):
        asked = [asyncio.ensure_future(ask(client, "b")) for _ in range(6)]
        while (await states(client))["b"] != "loading":
            await asyncio.sleep(0.01)
        assert (await ask(client, "a")).status_code == 200  # meanwhile
        garage.gates["b"].set()
        assert {response.status_code for response in await asyncio.gather(*asked)} == {200}
        assert garage.log == ["+a", "+b"]


async def test_each_request_waits_as_long_as_it_may(garage):
    garage.gates["b"] = asyncio.Event()
    async with served(garage, "a", "b", wait_seconds=0.05) as (client, _):
        for _ in range(2):
            response = await ask(client, "b")
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "model_loading"
            assert response.headers["retry-after"]
        garage.gates["b"].set()
        while (await states(client))["b"] != "loaded":
            await asyncio.sleep(0.01)
        assert (await ask(client, "b")).status_code == 200
        assert garage.log == ["+a", "+b"]


async def test_a_busy_model_stays_and_the_other_gets_an_answer(garage):
    async with served(garage, "a", "b", max_models=1, wait_seconds=0.1) as (client, _):
        engine = garage.last("a")
        engine.script, engine.delay = (lambda prompt, choice: "x" * 500), 0.01
        body = PROMPT | {"model": "a", "stream": True, "max_tokens": 500}
        async with client.stream("POST", TEXT, json=body) as response:
            lines = response.aiter_lines()
            await anext(lines)
            refused = await ask(client, "b")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_busy")
            assert garage.log == ["+a"]
        while engine.running:
            await asyncio.sleep(0.01)
        assert (await ask(client, "b")).status_code == 200
        assert garage.log == ["+a", "-a", "+b"]


async def test_a_client_that_leaves_while_it_waits_is_forgotten(garage):
    garage.gates["b"] = asyncio.Event()
    async with served(garage, "a", "b") as (client, fleet):
        waiting = asyncio.ensure_future(ask(client, "b"))
        while not fleet.policy.models["b"].waiting:
            await asyncio.sleep(0.01)
        waiting.cancel()
        while fleet.policy.models["b"].waiting:
            await asyncio.sleep(0.01)
        garage.gates["b"].set()
        while (await states(client))["b"] != "loaded":
            await asyncio.sleep(0.01)
        assert not fleet.policy.models["b"].open


async def test_a_failure_is_told_to_its_own_requests_and_tried_again(garage):
    garage.broken["b"] = ModelFileError("b.gguf is cut off")
    async with served(garage, "a", "b") as (client, fleet):
        now = fleet.clock()
        fleet.clock = lambda: now
        for _ in range(2):
            response = await ask(client, "b")
            assert response.status_code == 503
            error = response.json()["error"]
            assert error["code"] == "model_failed"
            assert "b.gguf is cut off" in error["message"]
            assert response.headers["retry-after"] == "1"
        assert len(garage.made) == 2  # no new attempt before its time
        assert await states(client) == {"a": "loaded", "b": "failed"}
        assert (await ask(client, "a")).status_code == 200
        assert (await client.get("/ready")).status_code == 200
        del garage.broken["b"]
        now += 1.01
        assert (await ask(client, "b")).status_code == 200


async def test_internal_errors_of_a_load_tell_nothing(garage, caplog):
    garage.broken["b"] = RuntimeError("secret")
    async with served(garage, "a", "b") as (client, _):
        response = await ask(client, "b")
        assert response.status_code == 503
        assert "secret" not in response.text
        assert "secret" in caplog.text


async def test_the_first_model_may_fail(garage):
    garage.broken["a"] = ModelFileError("no weights")
    async with served(garage, "a", "b") as (client, fleet):
        assert not fleet.starting
        assert (await ask(client, "a")).status_code == 503
        assert (await client.get("/ready")).status_code == 200
        assert (await ask(client, "b")).status_code == 200


async def test_not_ready_before_the_first_model_is_here(garage):
    garage.gates["a"] = asyncio.Event()
    async with served(garage, "a", "b") as (client, _):
        assert (await client.get("/live")).status_code == 200
        response = await client.get("/ready")
        assert (response.status_code, response.json()["error"]["code"]) == (503, "model_loading")
        assert (await ask(client, "b")).status_code == 200  # it can be served all the same
        garage.gates["a"].set()
        while (await client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.01)


async def test_an_engine_that_dies_comes_back_and_nobody_else_notices(garage):
    async with served(garage, "a", "b") as (client, fleet):
        assert (await ask(client, "b")).status_code == 200
        garage.last("b").die_after = 2
        response = await ask(client, "b")
        assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_restarted")
        assert response.headers["retry-after"] == "1"
        assert (await ask(client, "a")).status_code == 200
        assert (await ask(client, "b")).status_code == 200
        assert garage.log == ["+a", "+b", "-b", "+b"]
        garage.last("b").die_after = 2
        assert (await ask(client, "b")).status_code == 503
        now = fleet.clock()
        fleet.clock = lambda: now
        response = await ask(client, "b")  # the second time it takes a while
        assert (response.status_code, response.json()["error"]["code"]) == (503, "model_failed")
        now += 0.51
        assert (await ask(client, "b")).status_code == 200
        text = (await client.get("/metrics")).text
        assert 'tenon:engine_restarts_total{model_name="b"} 2.0' in text
        assert 'tenon:engine_restarts_total{model_name="a"} 0.0' in text


async def test_an_engine_that_died_is_freed_without_waiting_for_a_collection(garage):
    """It hangs in cycles, with its tokenizer: megabytes, but too few objects for a collection to come."""
    async with served(garage, "a", keep=True) as (client, _):
        gone = weakref.ref(garage.last("a"))
        garage.last("a").die_after = 2
        garage.made.clear()
        gc.disable()
        try:
            assert (await ask(client, "a")).status_code == 503
            async with asyncio.timeout(20):
                while gone() is not None:
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()


async def test_the_one_model_comes_back_by_itself(garage, caplog):
    async with served(garage, "a", keep=True) as (client, _):
        assert (await client.get("/ready")).status_code == 200
        garage.gates["a"] = asyncio.Event()
        garage.last("a").die_after = 2
        assert (await ask(client, "a")).json()["error"]["code"] == "engine_restarted"
        for response in (await client.get("/ready"), await client.get("/health"), await ask(client, "a")):
            assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_restarting")
            assert response.headers["retry-after"] == "1"
        assert (await client.get("/live")).status_code == 200
        garage.gates["a"].set()
        while (await client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.01)
        assert (await ask(client, "a")).status_code == 200
        assert "the engine of a has died (the engine is gone); it is started again" in caplog.text


async def test_the_one_model_is_given_up(garage, caplog):
    async with served(garage, "a", keep=True, restarts=RestartSettings(max_restarts=0)) as (client, fleet):
        garage.last("a").die_after = 2
        assert (await ask(client, "a")).json()["error"]["code"] == "engine_restarted"
        while not fleet.errored:
            await asyncio.sleep(0.01)
        for response in (await client.get("/ready"), await ask(client, "a")):
            assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_dead")
        assert "died too often and is given up" in caplog.text


async def test_the_one_model_that_cannot_be_loaded_is_an_error(garage):
    garage.broken["a"] = ModelFileError("no weights")
    fleet = Fleet(configs("a"), garage.make, costs={"a": 1}, keep=True)
    with pytest.raises(ModelFileError, match="no weights"):
        await fleet.start()
    await fleet.stop()
    assert len(garage.made) == 1


async def test_a_fleet_that_nobody_watches_has_failed(garage, monkeypatch, caplog):
    async with served(garage, "a", keep=True) as (_, fleet):
        assert not fleet.errored
        monkeypatch.setattr(fleet, "_died", lambda place: 1 / 0)
        garage.last("a").errored = True
        while not fleet.errored:
            await asyncio.sleep(0.01)
        assert "nobody watches the engines" in caplog.text
        garage.last("a").errored = False


async def test_nobody_waits_for_the_one_model(garage):
    garage.gates["a"] = asyncio.Event()
    async with served(garage, "a", keep=True) as (client, _):
        response = await ask(client, "a")
        assert (response.status_code, response.json()["error"]["code"]) == (503, "model_loading")


async def test_a_stalled_engine_is_not_ready(garage):
    async with served(garage, "a", keep=True) as (client, _):
        engine = garage.last("a")
        engine.heartbeat_age, engine.stalled = 12.5, True
        for path in ("/ready", "/health"):
            response = await client.get(path)
            assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_stalled")
        text = (await client.get("/metrics")).text
        assert 'tenon:engine_heartbeat_age_seconds{model_name="a"} 12.5' in text
        engine.stalled = False
        assert (await client.get("/ready")).status_code == 200


async def test_the_pulse_tells_the_engines_process(garage):
    async with served(garage, "a", keep=True) as (_, fleet):
        slot = fleet.slots()["a"]
        assert slot.pulse.pid == garage.last("a").pid


async def test_counters_outlive_engines(garage):
    async with served(garage, "a", "b", max_models=1) as (client, _):
        for turn in range(1, 3):
            garage.last("a").stats = EngineStats(num_steps=10, num_requests_running=3, kv_blocks_total=7)
            await ask(client, "b")
            text = (await client.get("/metrics")).text
            assert f'tenon:engine_steps_total{{model_name="a"}} {10.0 * turn}' in text
            assert 'tenon:num_requests_running{model_name="a"} 0.0' in text
            assert 'tenon:kv_blocks_total{model_name="a"} 0.0' in text
            assert 'tenon:model_loaded{model_name="a"} 0.0' in text
            assert 'tenon:model_loaded{model_name="b"} 1.0' in text
            await ask(client, "a")
        assert 'tenon:prompt_tokens_total{model_name="a"} 4.0' in (await client.get("/metrics")).text


async def test_counters_of_an_engine_that_died_count(garage):
    async with served(garage, "a", "b") as (client, fleet):
        assert (await ask(client, "b")).status_code == 200
        engine = garage.last("b")
        engine.stats = EngineStats(num_steps=10, num_requests_running=3)
        engine.errored, engine.ready = True, False
        texts = [(await client.get("/metrics")).text]
        while fleet.places[1].engine is not None:
            await asyncio.sleep(0.01)
        texts.append((await client.get("/metrics")).text)
        for text in texts:
            assert 'tenon:engine_steps_total{model_name="b"} 10.0' in text
            assert 'tenon:num_requests_running{model_name="b"} 0.0' in text


async def test_a_call_asks_for_its_model_once(garage):
    """A second lease would wait for a model that is to become idle, and it does when the call ends."""
    body = {"input": "hi", "model": "a", "truncation": "auto", "max_output_tokens": 4}
    async with served(garage, "a", "b") as (client, fleet):
        asked, ask_policy = [], fleet.policy.ask
        fleet.policy.ask = lambda name, *rest, **fields: (
            asked.append(name) or ask_policy(name, *rest, **fields)
        )
        assert (await client.post("/v1/responses", json=body)).status_code == 200
        assert asked == ["a"]


async def test_the_log_names_the_model(garage, caplog):
    caplog.set_level("INFO", "tenon.server")
    async with served(garage, "a", "b", max_models=1) as (client, _):
        await ask(client, "b-too")
    assert " 200 model=b-too prompt_tokens=2 " in caplog.text
    for line in ("loading a", "a is loaded after", "unloading a: room for b", "loading b"):
        assert line in caplog.text


async def test_stopping_ends_a_load(garage):
    garage.gates["b"] = asyncio.Event()
    async with served(garage, "a", "b") as (client, fleet):
        waiting = asyncio.ensure_future(ask(client, "b"))
        while not fleet.policy.models["b"].waiting:
            await asyncio.sleep(0.01)
    with pytest.raises((httpx.HTTPError, asyncio.CancelledError)):
        (await waiting).raise_for_status()
    assert sorted(garage.log) == ["+a", "-a", "-b"]


async def test_stopping_waits_for_an_engine_that_is_being_stopped(garage):
    async with served(garage, "a", "b", max_models=1) as (client, fleet):
        stopping, go_on = asyncio.Event(), asyncio.Event()
        engine = garage.last("a")
        stop = engine.stop

        async def slowly() -> None:
            stopping.set()
            await go_on.wait()
            await stop()

        engine.stop = slowly
        waiting = asyncio.ensure_future(ask(client, "b"))
        await stopping.wait()
        ended = asyncio.ensure_future(fleet.stop())
        await asyncio.sleep(0.01)
        go_on.set()
        await ended
        assert garage.log == ["+a", "-a"]  # and nothing is begun for the request that waits
    with contextlib.suppress(httpx.HTTPError):
        await waiting


# --- from arguments to a fleet


def test_memory_is_divided(monkeypatch):
    monkeypatch.setattr("tenon.engine.memory.kv_budget", lambda: 3 << 30)
    args = [EngineArgs(model=name, load_format="oracle") for name in "abc"]
    fleet = make_fleet([a.resolve() for a in args], ResidencySettings())
    assert [place.config.kv_cache_memory for place in fleet.places] == [1 << 30] * 3
    assert fleet.policy.max_bytes == 3 << 30
    fleet = make_fleet([a.resolve() for a in args], ResidencySettings(max_models=2, max_bytes=2 << 30))
    assert [place.config.kv_cache_memory for place in fleet.places] == [1 << 30] * 3
    assert (fleet.policy.max_models, fleet.policy.max_bytes) == (2, 2 << 30)
    args[1].kv_cache_memory = "5MiB"
    fleet = make_fleet([a.resolve() for a in args], ResidencySettings(max_bytes=3 << 30))
    assert {name: model.cost >> 20 for name, model in fleet.policy.models.items()} == {
        "a": 1024,
        "b": 5,
        "c": 1024,
    }


def test_memory_that_no_model_fits_in_is_refused_at_start():
    args = [EngineArgs(model=name, load_format="oracle") for name in "ab"]
    args[1].kv_cache_memory = "300MiB"
    with pytest.raises(ConfigError, match=r"have 100 MiB .* a 256 MiB, b 300 MiB"):
        make_fleet([a.resolve() for a in args], ResidencySettings(max_bytes=100 << 20))
    make_fleet([a.resolve() for a in args], ResidencySettings(max_bytes=260 << 20))  # a fits


def test_names_are_unique():
    args = [EngineArgs(model="m", load_format="oracle").resolve() for _ in range(2)]
    with pytest.raises(ConfigError, match="two models are named m"):
        make_fleet(args, ResidencySettings())
