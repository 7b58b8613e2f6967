"""A fault at any stage of one request, in a real server, under other requests of every kind: that request
ends with a clear error, the others get what they get without it, and nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tenon.config import EngineArgs
from tenon.engine.async_engine import AsyncEngine
from tenon.engine.client import InProcessClient
from tenon.server.app import App
from tenon.util.failpoint import STAGES, arm
from tests.history import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Record, ask, judge, judge_tokens, meaning
from tests.server.serving import serving

FAULTY = "faulty"  # marks the request that the fault is for: in its id and in its text

# By what they need: a stage that a request does not meet cannot fail it.
TEXT = {"template", "parse-out"}
GUIDED = {"grammar", "mask"}
IN_PROCESS = [stage for stage in STAGES if stage != "decode"]  # tests/engine/test_process.py has that one


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def kinds(text: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """One request of every kind about `text`: its path and body."""
    greedy = {"temperature": 0, "max_tokens": 12}
    guided = {"structured_outputs": {"regex": f"({text}|[ab]{{6,9}})"}}
    streamed = {"stream": True, "stream_options": {"include_usage": True}, "return_token_ids": True}
    return {
        "completion": (COMPLETIONS, greedy | {"prompt": text, "n": 2, "logprobs": 2, "ignore_eos": True}),
        "completion stream": (COMPLETIONS, greedy | streamed | {"prompt": text}),
        "echo": (COMPLETIONS, greedy | {"prompt": [text, text + "!"], "echo": True, "logprobs": 1}),
        "chat": (CHAT, greedy | {"messages": messages(text)}),
        "chat stream": (CHAT, greedy | streamed | {"messages": messages(text), "n": 2}),
        "responses": (RESPONSES, {"input": text, "temperature": 0, "max_output_tokens": 12}),
        "responses stream": (
            RESPONSES,
            {"input": text, "temperature": 0, "max_output_tokens": 12, "stream": True},
        ),
        "messages": (MESSAGES, greedy | {"messages": messages(text)}),
        "messages stream": (MESSAGES, greedy | {"messages": messages(text), "stream": True}),
        "guided": (CHAT, greedy | guided | {"messages": messages(text)}),
        "guided stream": (COMPLETIONS, greedy | guided | streamed | {"prompt": text}),
        "stop": (COMPLETIONS, greedy | {"prompt": text, "stop": ["q", "x"], "max_tokens": 40}),
    }


def meets(kind: str, stage: str) -> bool:
    if stage in GUIDED:
        return kind.startswith("guided")
    return stage not in TEXT or kind.startswith(("chat", "responses", "messages"))


@dataclass
class Server:
    address: tuple[str, int]
    app: App
    engine: AsyncEngine
    client: InProcessClient

    async def one(self, kind: str, text: str, request_id: str) -> Record:
        path, body = kinds(text)[kind]
        return await ask(self.address, path, {"model": "oracle", **body}, request_id)

    async def others(self, *more) -> list[Any]:
        """One request of every kind at once, and `more` among them. Their records; those of `more` last."""
        asked = [self.one(kind, f"about {kind}", f"other-{i}") for i, kind in enumerate(kinds(""))]
        asked.insert(random.randrange(len(asked)), *more) if more else None
        records = await asyncio.gather(*asked)
        return sorted(records, key=lambda record: (FAULTY in record.request_id, record.request_id))

    async def check_nothing_is_left(self) -> None:
        """An answer is complete before its request is quite gone."""
        for _ in range(200):
            if not (self.engine.num_in_flight or self.client.has_work or self.app.live):
                break
            await asyncio.sleep(0.01)
        assert not self.app.live
        assert not self.engine.num_in_flight
        engine = self.client.engine
        assert not engine.has_work
        engine.check_integrity()
        assert engine.stats().kv_blocks_used == 0
        assert engine.table.num_rows == 0
        canary = {"model": "oracle", "prompt": [1, 2, 3], "temperature": 0, "max_tokens": 5}
        record = await ask(
            self.address,
            COMPLETIONS,
            canary | {"return_token_ids": True, "ignore_eos": True, "stream": True},
            "canary",
        )
        judge(record)
        judge_tokens(record)


@asynccontextmanager
async def oracle_server(**args) -> AsyncIterator[Server]:
    """A server on a socket, its engine in this process, so that faults can be armed here."""
    config = EngineArgs(load_format="oracle", model="oracle", **args).resolve()
    client = InProcessClient(config)
    engine = AsyncEngine(config, client)
    await engine.start()
    async with serving(engine) as (url, app):
        port = int(url.rsplit(":", 1)[1])
        yield Server(("127.0.0.1", port), app, engine, client)
    await engine.stop()


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """What the others get without a fault."""

    async def without() -> dict[str, Any]:
        async with oracle_server() as server:
            records = await server.others()
            for record in records:
                judge(record)
                assert record.status == 200
            return {record.request_id: meaning(record) for record in records}

    return asyncio.run(without())


async def check_containment(
    server: Server, expected: dict[str, Any], stage: str, action: str, kind: str, nth: str = ""
) -> Record:
    """Run all with the fault. Returns the record of the request it was for, judged but for its error."""
    server.client.engine.guides.compiler.forget()  # what is known is not compiled again
    with arm(f"{stage}@{FAULTY}:{action}{nth}") as (fault,):
        *others, faulty = await server.others(server.one(kind, FAULTY, f"{FAULTY}-1"))
    assert fault.fired, f"{kind} does not meet {stage}"
    for record in others:
        judge(record)
        assert meaning(record) == expected[record.request_id], f"{kind} at {stage} changed {record}"
    await server.check_nothing_is_left()
    return faulty


def check_failed(record: Record, stage: str) -> None:
    if stage == "free":
        judge(record)
        assert record.error is None
        return
    if stage == "send":  # whatever is to be sent fails: the connection ends, with nothing that reads as whole
        assert record.status in (0, 500)
        assert SECRET not in record.data
        return
    judge(record)
    assert record.error is not None, record
    assert record.streams or record.status == 500


SECRET = b"ValueError"


@pytest.mark.parametrize("action", ["ValueError", "MemoryError"])
@pytest.mark.parametrize("stage", IN_PROCESS)
async def test_a_fault_of_one_request_is_its_own(stage, action, expected):
    kind = random.choice([kind for kind in kinds("") if meets(kind, stage)])
    print(kind)
    async with oracle_server() as server:
        check_failed(await check_containment(server, expected, stage, action, kind), stage)


@pytest.mark.parametrize("stage", IN_PROCESS)
async def test_a_slow_stage_delays_and_changes_nothing(stage, expected):
    kind = random.choice([kind for kind in kinds("") if meets(kind, stage)])
    print(kind)
    async with oracle_server() as server:
        record = await check_containment(server, expected, stage, "sleep=0.01", kind)
    judge(record)
    assert record.error is None


@pytest.mark.parametrize("stage", ["serialise", "send"])
@pytest.mark.parametrize("kind", kinds(""))
async def test_an_answer_that_fails_on_its_way_out_has_one_end(kind, stage):
    """One fault at each part that is sent, the first and the last included."""
    async with oracle_server() as server:
        for n in range(1, 1000):
            with arm(f"{stage}:ValueError:{n}") as (fault,):
                record = await server.one(kind, "text", f"{FAULTY}-{n}")
            if record.whole:
                judge(record)
            else:  # the head of a whole answer was out, its body failed
                assert stage == "send"
                assert not record.streams
            if not fault.fired:
                break
        assert n > 1
