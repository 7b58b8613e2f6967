"""The engine in a process of its own: answers, errors, and the death of either side."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tenon.config import EngineArgs
from tenon.core.messages import Abort, Failed
from tenon.core.sampling import SamplingParams
from tenon.engine.async_engine import AsyncEngine
from tenon.engine.heartbeat import Patience
from tenon.engine.process import ProcessClient, typed_error
from tenon.engine.suspects import Suspects
from tenon.errors import ConfigError, DeadlyRequest, EngineDead, InvalidRequest, ModelNotFound, RequestFailed


def make(**args) -> AsyncEngine:
    return AsyncEngine(EngineArgs(load_format="oracle", **args).resolve())


@contextlib.asynccontextmanager
async def running():
    engine = make()
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


@pytest.fixture
async def engine():
    async with running() as engine:
        yield engine


async def last(stream):
    async for output in stream:
        final = output
    return final


def params(**fields) -> SamplingParams:
    return SamplingParams(**{"max_tokens": 20, "seed": 1, "ignore_eos": True, **fields})


async def test_many_requests_at_once_get_the_answers_they_get_alone(engine):
    prompts = [f"prompt {i}" for i in range(24)]
    together = await asyncio.gather(*[last(engine.generate(p, params(n=2))) for p in prompts])
    for prompt, output in zip(prompts[:6], together, strict=False):
        alone = await last(engine.generate(prompt, params(n=2)))
        assert alone.finished
        assert [c.token_ids for c in alone.outputs] == [c.token_ids for c in output.outputs]
        assert [c.text for c in alone.outputs] == [c.text for c in output.outputs]
    assert engine.num_in_flight == 0


async def test_gauges_are_right_before_the_first_request(engine):
    assert engine.stats.kv_blocks_total == engine.info.num_kv_blocks > 0


async def test_a_stream_is_cumulative_and_ends_once(engine):
    lengths = []
    stream = engine.generate("x", params(max_tokens=50))
    async for output in stream:
        lengths.append(len(output.outputs[0].token_ids))
    assert lengths == sorted(set(lengths))
    assert lengths[-1] == 50
    with pytest.raises(StopAsyncIteration):
        await stream.__anext__()


async def test_aborts_free_everything(engine):
    stream = engine.generate("x", params(max_tokens=3000))
    await stream.__anext__()
    await stream.aclose()
    reader = asyncio.create_task(last(engine.generate("y", params(max_tokens=3000))))
    await asyncio.sleep(0.05)
    reader.cancel()
    engine.generate("z", params(max_tokens=3000))  # dropped without a word
    by_id = engine.generate("v", params(max_tokens=3000), request_id="mine")
    engine.abort("mine")
    assert (await last(by_id)).outputs[0].finish_reason == "abort"
    await last(engine.generate("w", params()))
    for _ in range(100):
        if engine.stats.num_requests_running == 0 and engine.stats.kv_blocks_used == 0:
            break
        await asyncio.sleep(0.02)
    assert engine.stats.kv_blocks_used == 0
    assert engine.num_in_flight == 0


async def test_wrong_requests_are_refused_before_they_are_sent(engine):
    with pytest.raises(InvalidRequest, match="empty"):
        engine.generate([], params())
    with pytest.raises(InvalidRequest, match="context"):
        engine.generate([1] * 5000, params())
    engine.generate("a", params(max_tokens=3000), request_id="twice")
    stream = engine.generate("b", params(max_tokens=3000), request_id="other")
    with pytest.raises(InvalidRequest, match="in flight"):
        engine.generate("c", params(), request_id="other")
    await stream.aclose()


async def test_a_message_that_cannot_be_read_is_answered_and_takes_no_other_with_it(engine):
    good = engine.generate("x", params(), request_id="good")
    bad = engine.generate("x", params(max_tokens=3000), request_id="bad")  # the engine refuses its double
    message = {"type": "add", "request_id": "bad/0", "prompt_token_ids": "?", "params": {}}
    out_of_range = message | {"prompt_token_ids": [1], "params": {"temperature": -1.0}}
    engine._client.send([{"type": "nonsense"}, 7, message, Abort(["no one"]), out_of_range])
    engine._client._requests.send(b"no msgpack")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        await last(bad)
    assert (await last(good)).finished


async def test_an_idle_engine_uses_no_cpu(engine):
    await last(engine.generate("x", params()))
    process = psutil.Process(engine._client.pid)
    await asyncio.sleep(1.3)  # the check of an idle engine is over
    before = process.cpu_times()
    await asyncio.sleep(0.5)
    after = process.cpu_times()
    assert after.user + after.system - before.user - before.system <= 0.02


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_dead_engine_ends_every_request_at_once(how):
    engine = make()
    await engine.start()
    directory = Path(engine._client._directory)
    readers = [asyncio.create_task(last(engine.generate(f"{i}", params(max_tokens=4000)))) for i in range(8)]
    await asyncio.sleep(0.1)
    os.kill(engine._client.pid, how)
    begin = time.monotonic()
    results = await asyncio.gather(*readers, return_exceptions=True)
    assert time.monotonic() - begin < 2
    assert all(isinstance(result, EngineDead) for result in results)
    assert how.name in str(results[0])
    assert engine.errored
    assert not engine.ready
    with pytest.raises(EngineDead):
        engine.generate("x", params())
    await engine.stop()
    assert not directory.exists()


async def test_a_frozen_engine_is_killed_and_its_requests_are_told():
    config = EngineArgs(load_format="oracle").resolve()
    engine = AsyncEngine(config, ProcessClient(config, patience=Patience(1.0, 60.0)))
    await engine.start()
    reader = asyncio.create_task(last(engine.generate("x", params(max_tokens=4000))))
    await asyncio.sleep(0.05)
    process = psutil.Process(engine._client.pid)
    process.suspend()
    with pytest.raises(EngineDead, match=r"was frozen for \d s and was killed"):
        await reader
    assert engine.errored
    assert engine.stalled
    await engine.stop()
    assert not process.is_running()


async def test_an_engine_that_hangs_while_it_starts_is_killed(caplog):
    config = EngineArgs(load_format="oracle").resolve()
    client = ProcessClient(config, patience=Patience(load_timeout=1.0))
    starting = asyncio.create_task(AsyncEngine(config, client).start())
    while client.pid is None:
        await asyncio.sleep(0)
    process = psutil.Process(client.pid)
    process.suspend()
    with pytest.raises(EngineDead, match=r"no progress for 1 s while it was loading \(--load-timeout\)"):
        await starting
    assert "its stacks follow" in caplog.text
    assert not process.is_running()


async def test_a_template_that_cannot_be_compiled_keeps_an_engine_from_starting():
    for serves in (False, True):
        config = EngineArgs(load_format="oracle", chat_template="{% for %}").resolve()
        engine = AsyncEngine(config, serves=serves)
        with pytest.raises(ConfigError, match="chat_template is malformed, line 1"):
            await engine.start()
        assert not psutil.pid_exists(engine.pid)


async def test_who_was_sent_to_an_engine_that_was_frozen_before_is_not_to_blame_for_its_end(caplog):
    suspects = Suspects()

    async def crash(*, frozen: bool) -> None:
        async with running() as engine:
            engine.suspects = suspects
            process = psutil.Process(engine._client.pid)
            if frozen:
                process.suspend()
            stream = engine.generate("x", params(max_tokens=4000), "cmpl:its-id")
            if not frozen:
                await anext(stream)
            process.kill()
            with pytest.raises(EngineDead):
                await last(stream)

    await crash(frozen=False)
    await crash(frozen=True)
    assert "is refused" not in caplog.text
    await crash(frozen=False)
    assert "cmpl:its-id" in caplog.text
    assert "is refused from now on" in caplog.text
    with pytest.raises(DeadlyRequest):
        await crash(frozen=False)


async def test_a_step_that_never_ends_is_killed_after_its_stacks_were_shown(monkeypatch, capfd):
    monkeypatch.setenv("TENON_FAILPOINTS", "execute:hang")
    config = EngineArgs(load_format="oracle").resolve()
    engine = AsyncEngine(config, ProcessClient(config, patience=Patience(1.0, 60.0)))
    await engine.start()
    with pytest.raises(EngineDead, match="was frozen"):
        await last(engine.generate("x", params()))
    await engine.stop()
    assert 'runner.py", line' in capfd.readouterr().err


def test_a_thread_that_fails_takes_the_engine_with_it():
    """Requests that wait for what it does must not wait for ever."""
    code = (
        "import threading, time; from tenon.engine import worker;"
        "threading.excepthook = worker._end_with_thread;"
        "threading.Thread(target=lambda: 1 / 0, name='doomed').start(); time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "the thread doomed failed" in done.stderr
    assert "ZeroDivisionError" in done.stderr


async def test_outputs_that_cannot_be_read_end_the_engine(engine):
    engine._client._die("its outputs cannot be read")
    with pytest.raises(EngineDead, match="cannot be read"):
        await last(engine.generate("x", params(max_tokens=4000)))


async def test_an_engine_that_cannot_be_watched_is_given_up(engine, monkeypatch):
    def fail(pid):
        raise OSError("no such file")

    monkeypatch.setattr("tenon.engine.process.cpu_seconds", fail)

    async def forever():  # until the next look at the heartbeat
        while True:
            await last(engine.generate("x", params(max_tokens=2000)))

    with pytest.raises(EngineDead, match="heartbeat cannot be read: OSError"):
        await forever()


async def test_nothing_is_left_on_disk_from_the_start_on(engine):
    directory = Path(engine._client._directory)
    await last(engine.generate("x", params()))
    assert not directory.exists()


async def test_sigterm_and_sigint_leave_the_engine_to_its_parent(engine):
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(engine._client.pid, number)
    assert (await last(engine.generate("x", params()))).finished


async def test_stop_leaves_nothing_and_may_come_twice():
    engine = make()
    await engine.start()
    directory, pid = engine._client._directory, engine._client.pid
    reader = asyncio.create_task(last(engine.generate("x", params(max_tokens=4000))))
    await asyncio.sleep(0.05)
    begin = time.monotonic()
    await engine.stop()
    assert time.monotonic() - begin < 4, "it had to be killed"
    assert engine._client._process.returncode == 0
    await engine.stop()
    with pytest.raises(EngineDead):
        await reader
    assert not psutil.pid_exists(pid)
    assert not Path(directory).exists()


async def test_stop_before_start():
    await make().stop()


async def test_start_can_be_cancelled():
    engine = make()
    start = asyncio.create_task(engine.start())
    await asyncio.sleep(0.05)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert engine._client._process.returncode is not None
    await engine.stop()


@pytest.mark.parametrize(
    ("args", "error", "match"),
    [
        ({"load_format": "oracle", "max_model_len": 5000}, ConfigError, "4096"),
        (
            {"load_format": "oracle", "kv_cache_memory": 3000, "max_model_len": 4096},
            ConfigError,
            "kv_cache_memory",
        ),
        ({"model": "/nowhere/to/be/found"}, ModelNotFound, "nowhere"),
    ],
)
async def test_a_failed_start_raises_the_error_of_the_child(args, error, match):
    client = ProcessClient(EngineArgs(**args).resolve())
    with pytest.raises(error, match=match):
        await client.start()
    assert client._process.returncode is not None


def test_unknown_kinds_of_failure_are_a_dead_engine():
    assert type(typed_error(Failed("SystemExit", "x"))) is EngineDead
    assert type(typed_error(Failed("annotations", "x"))) is EngineDead
    assert type(typed_error(Failed("InvalidRequest", "x"))) is InvalidRequest


@pytest.mark.parametrize(
    "stage", ["decode", "admit", "schedule", "alloc", "prepare", "execute", "sample", "emit"]
)
async def test_a_fault_of_one_request_in_the_engine_process_is_its_own(stage, monkeypatch):
    monkeypatch.setenv("TENON_FAILPOINTS", f"{stage}@faulty:ValueError")
    async with running() as engine:
        names = ["a", "b", "faulty", "c"]
        streams = [engine.generate(f"prompt {name}", params(), request_id=name) for name in names]
        answers = await asyncio.gather(*map(last, streams), return_exceptions=True)
        assert isinstance(answers[2], RequestFailed), answers[2]
        assert "ValueError" in str(answers[2])
        again = await last(engine.generate("prompt a", params()))
        assert again.outputs[0].token_ids == answers[0].outputs[0].token_ids
        assert all(len(answers[i].outputs[0].token_ids) == 20 for i in (0, 1, 3))
        assert engine.num_in_flight == 0


PARENT = """
import asyncio, time
from tenon.config import EngineArgs
from tenon.core.sampling import SamplingParams
from tenon.engine.async_engine import AsyncEngine
async def main():
    engine = AsyncEngine(EngineArgs(load_format="oracle").resolve())
    await engine.start()
    stream = engine.generate("x", SamplingParams(max_tokens=4000, ignore_eos=True))
    print(engine._client.pid, engine._client._directory, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def test_the_engine_dies_with_its_parent():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    pid, directory = parent.stdout.readline().split()
    child = psutil.Process(int(pid))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    with contextlib.suppress(psutil.NoSuchProcess):
        child.wait(timeout=3)
    assert not Path(directory).exists()
