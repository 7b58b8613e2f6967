"""AsyncEngine around an engine in this process; failures that need a client of their own."""

import asyncio

import pytest

from tenon.config import EngineArgs
from tenon.core.messages import Abort, Outputs, Ready
from tenon.core.sampling import SamplingParams
from tenon.engine import loader
from tenon.engine.async_engine import AsyncEngine
from tenon.engine.client import InProcessClient
from tenon.errors import ConfigError, EngineDead, RequestFailed

PARAMS = SamplingParams(max_tokens=30, ignore_eos=True)


def make(client_type=InProcessClient, **args) -> AsyncEngine:
    config = EngineArgs(load_format="oracle", model="/models/own.gguf", **args).resolve()
    return AsyncEngine(config, client_type(config))


async def last(stream):
    async for output in stream:
        final = output
    return final


async def test_in_process():
    engine = make()
    assert not engine.ready
    with pytest.raises(EngineDead, match="not ready"):
        engine.generate("x", PARAMS)
    await engine.start()
    assert engine.ready
    assert engine.model_name == "own.gguf" == engine.served_model_names[0]
    assert engine.max_model_len == 4096
    outputs = await asyncio.gather(*[last(engine.generate(f"{i}", PARAMS)) for i in range(5)])
    assert all(len(output.outputs[0].token_ids) == 30 for output in outputs)
    assert engine.stats.num_steps >= 30
    engine.reset_prefix_cache()
    async with engine.generate("left early", PARAMS, request_id="early") as stream:
        assert stream.request_id == "early"
        assert stream.prompt_token_ids[0] == 256
        assert isinstance(stream.seed, int)
        await stream.__anext__()
    assert engine.num_in_flight == 0
    await engine.stop()
    assert engine.errored
    with pytest.raises(EngineDead, match="stopped"):
        engine.generate("x", PARAMS)


async def test_a_failing_request_raises_in_its_own_stream():
    engine = make()
    await engine.start()

    def fail(batch):
        if 77 in batch.token_ids_T[batch.positions_T == 0]:
            raise ValueError

    engine._client.engine.runner.model.fail = fail
    good = asyncio.create_task(last(engine.generate("good", PARAMS)))
    with pytest.raises(RequestFailed, match="ValueError"):
        await last(engine.generate([77], PARAMS))
    assert (await good).finished
    await engine.stop()


class BrokenClient(InProcessClient):
    """Sends what no engine sends."""

    async def receive(self) -> Outputs:
        await asyncio.sleep(0.01)
        raise KeyError("broken")


async def test_a_reader_that_fails_ends_every_request():
    engine = make(BrokenClient)
    await engine.start()
    with pytest.raises(EngineDead, match="KeyError"):
        await last(engine.generate("x", PARAMS))
    assert engine.errored
    await engine.stop()


class DeafClient(InProcessClient):
    """Has died, and nobody noticed yet."""

    def send(self, messages) -> int:
        if isinstance(messages[0], Abort):
            raise EngineDead("gone")
        return super().send(messages)


async def test_an_abort_to_a_dead_engine_is_no_error():
    engine = make(DeafClient)
    await engine.start()
    stream = engine.generate("x", PARAMS)
    await stream.aclose()
    await engine.stop()


class NoClient(InProcessClient):
    async def start(self) -> Ready:
        raise ConfigError("no")


async def test_a_failed_start_stops_the_client():
    engine = make(NoClient)
    with pytest.raises(ConfigError, match="no"):
        await engine.start()
    assert not engine.ready


async def test_a_chat_template_that_is_not_there():
    engine = make(chat_template="/not/there.jinja")
    with pytest.raises(ConfigError, match="chat_template"):
        await engine.start()


async def test_an_own_chat_template(tmp_path):
    path = tmp_path / "own.jinja"
    path.write_text("{{ messages[0].content }}")
    engine = make(chat_template=str(path))
    await engine.start()
    assert engine.tokenizer.chat_template == "{{ messages[0].content }}"
    await engine.stop()


async def test_progress_of_loading_comes_through(monkeypatch):
    def load(config, progress):
        progress(1, 2)
        return real(config, progress)

    real = loader.load_engine
    monkeypatch.setattr(loader, "load_engine", load)
    seen = []
    config = EngineArgs(load_format="oracle").resolve()
    client = InProcessClient(config, lambda done, total: seen.append((done, total)))
    await client.start()
    assert seen == [(1, 2)]
