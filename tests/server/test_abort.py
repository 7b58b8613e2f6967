"""A client that leaves, or whose deadline passes: in whatever state its request is, nothing is left of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random

import pytest

from tenon.server.limits import Limits
from tenon.server.settings import ServerSettings
from tenon.util.failpoint import arm
from tests.server.oracle_serving import OracleServer, Raw, oracle_serving
from tests.server.states import ARGS, BLOCKERS, LONG, STATES, TEXT

STEP = 0.002


async def until(condition, *arguments) -> None:
    async with asyncio.timeout(30):
        while not condition(*arguments):
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def in_state(server: OracleServer, state, stream: bool, *, wait: bool = True, **headers: str):
    """A request in the state; the engine may be full of others, which go on."""
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(arm(state.faults))
        for _ in range(BLOCKERS if state.blocked else 0):
            await stack.enter_async_context(Raw(server.port, TEXT, {"prompt": "y"} | LONG))
        await until(lambda: len(server.engine.scheduler.running) == (BLOCKERS if state.blocked else 0))
        others = set(server.app.live)
        raw = Raw(server.port, state.path, state.request() | {"stream": stream}, **headers)
        await stack.enter_async_context(raw)
        if wait:
            await until(state.there, server)
        yield raw, others


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("state", STATES, ids=repr)
async def test_a_client_that_leaves(state, stream):
    async with oracle_serving(step=STEP, **ARGS) as server:
        for reset in (False, True):
            async with in_state(server, state, stream) as (raw, others):
                raw.leave(reset=reset)
                await until(lambda gone=others: server.app.live <= gone)
                await until(lambda: len(server.engine.scheduler) + len(server.engine.guides) <= len(others))
                assert others == server.app.live, "the others go on"
            await until(lambda: server.idle)
        server.engine.check_integrity()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("state", STATES, ids=repr)
async def test_a_deadline_passes(state, stream):
    """Ends in one error: a status before the first byte, an event after it; and then nothing more."""
    header = {"queue": "x_queue_timeout_ms", "prefill": "x_first_token_timeout_ms"}.get(
        state.name, "x_request_timeout_ms"
    )
    async with oracle_serving(step=5 * STEP, **ARGS) as server:
        async with in_state(server, state, stream, wait=False, **{header: "400"}) as (raw, _):
            status, data = await raw.answer()
        text = data.decode()
        if stream and status == 200:
            *_, last = [line for line in text.splitlines() if line.startswith("data: ")]
            assert "[DONE]" not in text
            error = json.loads(last.removeprefix("data: "))["error"]
        else:
            assert status == (503 if state.name == "queue" else 504)
            error = json.loads(text)["error"]
        assert "0.4 s" in error["message"]
        await until(lambda: server.idle)
        server.engine.check_integrity()


async def test_many_come_and_go():
    """Aborts at random moments, of all kinds of requests, between others that must not notice."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    settings = ServerSettings(limits=Limits(queued_requests=1000))
    async with oracle_serving(settings, **(ARGS | {"max_num_seqs": 8})) as server:
        whole = {"prompt": "whole", "max_tokens": 40, "seed": 1, "ignore_eos": True}
        async with Raw(server.port, TEXT, whole) as raw:
            expected = json.loads((await raw.answer())[1])["choices"]

        async def visitor() -> None:
            state = rng.choice([state for state in STATES if not state.faults])
            async with Raw(server.port, state.path, state.request() | {"stream": rng.random() < 0.5}) as raw:
                await asyncio.sleep(rng.random() * 0.05)
                raw.leave(reset=rng.random() < 0.5)

        async def steady() -> None:
            async with Raw(server.port, TEXT, whole) as raw:
                assert json.loads((await raw.answer())[1])["choices"] == expected, f"seed {seed}"

        await asyncio.gather(*(rng.choice([visitor, visitor, steady])() for _ in range(90)))
        await until(lambda: server.idle)
        server.engine.check_integrity()
