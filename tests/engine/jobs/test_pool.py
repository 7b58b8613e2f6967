"""A job that goes wrong costs its own request an error and the pool a worker; nobody else notices."""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tenon.config import EngineArgs
from tenon.core.structured import StructuredOutputs
from tenon.engine import oracle
from tenon.engine.jobs.bench import Bench
from tenon.engine.jobs.pool import MAX_WORKERS, Workers
from tenon.engine.jobs.work import Allowance, Chat, Grammar, Pair, Template, Text, Tokens
from tenon.errors import InvalidRequest, RequestFailed, Unavailable
from tenon.text.conversation import Conversation

ALLOWANCE = Allowance(template_seconds=0.3, grammar_seconds=1.0)
HELLO = [{"role": "user", "content": "Hello"}]
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
LARGE = (
    "{% set ns = namespace(s='abcdefgh') %}{% for a in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}"
)
FOLDED = "{{ 'a' * 10 ** 12 }}"  # Jinja computes it when it compiles the template
COSTLY = "{{ x }}" * 100_000  # seconds to compile
DEEP = "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}"


def chat(template: str | None = None, content: str = "Hello") -> Chat:
    return Chat(Conversation(messages=[{"role": "user", "content": content}], template=template))


def in_pool(test: Callable[[Workers], Awaitable[None]]) -> None:
    async def main() -> None:
        workers = Workers(EngineArgs(load_format="oracle").resolve())
        try:
            await test(workers)
        finally:
            await workers.stop()

    asyncio.run(main())


def children(workers: Workers) -> list[int]:
    """The processes of workers that live."""
    pid = workers.nursery_pid
    with contextlib.suppress(OSError):
        return [p for p in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()) if lives(p)]
    return []


def lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def at_work(workers: Workers, count: int = 1) -> list[int]:
    """Wait until so many are there and have had time to begin."""
    while len(children(workers)) < count:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    return children(workers)


def test_jobs_are_done_as_in_place():
    bench = Bench(oracle.tokenizer())
    jobs = [
        chat(),
        chat(content="x <|end|> é" * 9),
        Text("some text"),
        Text("a <|end|>", add_special_tokens=False, plain=True),
        Text("long text " * 20000),
        Pair("a", "b", limit=2),
        Chat(Conversation(messages=HELLO, variables={"big": 10**40}), add_special_tokens=True),
    ]

    async def test(workers: Workers) -> None:
        done = await asyncio.gather(*(workers.run(job, Allowance()) for job in jobs))
        assert done == [bench.do(job) for job in jobs]

    in_pool(test)


@pytest.mark.parametrize(
    "template", [ENDLESS, LARGE, FOLDED, DEEP], ids=["endless", "large", "folded", "deep"]
)
def test_a_template_beyond_its_allowance_is_refused_alone(template):
    async def test(workers: Workers) -> None:
        for _ in range(2):
            with pytest.raises(InvalidRequest) as caught:
                await workers.run(chat(template), ALLOWANCE)
            assert caught.value.param == "messages"
            assert (await workers.run(chat(), ALLOWANCE)).ids

    in_pool(test)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (COSTLY, "chat_template: compiling it took longer than 0.3 s"),
        ("{% if %}", "chat_template is malformed, line 1"),
    ],
    ids=["endless", "malformed"],
)
def test_a_template_that_cannot_be_compiled(source, says):
    async def test(workers: Workers) -> None:
        with pytest.raises(InvalidRequest, match=says) as caught:
            await workers.run(Template(source), ALLOWANCE)
        assert caught.value.param == "chat_template"
        assert await workers.run(Template("{{ messages }}"), ALLOWANCE) == Tokens()

    in_pool(test)


def test_jobs_beside_endless_ones_are_done():
    async def test(workers: Workers) -> None:
        await workers.start()
        long = Allowance(template_seconds=60)
        endless = [asyncio.ensure_future(workers.run(chat(ENDLESS), long)) for _ in range(3)]
        await at_work(workers, 3)
        await workers.run(chat(), Allowance())
        assert not any(task.done() for task in endless)
        for task in endless:
            task.cancel()
        await asyncio.wait(endless)

    in_pool(test)


def test_a_request_that_goes_away_takes_its_job_with_it():
    async def test(workers: Workers) -> None:
        await workers.start()
        for _ in range(MAX_WORKERS + 1):  # no place is lost
            task = asyncio.ensure_future(workers.run(chat(ENDLESS), Allowance(template_seconds=60)))
            before = set(await at_work(workers))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while set(children(workers)) & before:
                await asyncio.sleep(0.01)
        assert (await workers.run(chat(), Allowance())).ids

    in_pool(test)


def test_a_request_that_goes_away_while_its_worker_is_reaped_costs_no_other():
    async def test(workers: Workers) -> None:
        task = asyncio.ensure_future(workers.run(chat(ENDLESS), Allowance(template_seconds=60)))
        (pid,) = await at_work(workers)
        nursery = workers.nursery_pid
        os.kill(nursery, signal.SIGSTOP)  # it is asked, and does not answer yet
        os.kill(pid, signal.SIGSEGV)
        while not workers._nursery._turn.locked():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        os.kill(nursery, signal.SIGCONT)
        assert (await workers.run(chat(), ALLOWANCE)).ids
        assert workers.nursery_pid == nursery

    in_pool(test)


def grammar(outputs: StructuredOutputs) -> Grammar:
    return Grammar(outputs, 261, (oracle.EOS,))


def test_grammars_are_tried_once():
    async def test(workers: Workers) -> None:
        good, bad = StructuredOutputs(regex="a+b"), StructuredOutputs(regex="([")
        for _ in range(2):
            assert await workers.run(grammar(good), ALLOWANCE) == Tokens()
            with pytest.raises(InvalidRequest, match="regex") as caught:
                await workers.run(grammar(bad), ALLOWANCE)
            assert caught.value.code == "invalid_grammar"
        assert len(workers.known) == 2

    in_pool(test)


def test_a_worker_that_is_killed_costs_nothing(caplog):
    """Not the idle one, nor one at work: its job is done again."""

    async def test(workers: Workers) -> None:
        await workers.run(chat(), ALLOWANCE)
        (pid,) = children(workers)
        os.kill(pid, signal.SIGKILL)
        assert (await workers.run(chat(), ALLOWANCE)).ids
        os.kill(nursery := workers.nursery_pid, signal.SIGKILL)
        while f"({nursery}) is gone; it is started again" not in caplog.text:
            assert (await workers.run(chat(), ALLOWANCE)).ids  # perhaps by a worker that is not dead yet
        task = asyncio.ensure_future(workers.run(chat(ENDLESS), Allowance(template_seconds=2)))
        for pid in await at_work(workers):
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(InvalidRequest, match="longer than 2 s"):
            await task

    in_pool(test)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_job_that_crashes_is_refused(number):
    async def test(workers: Workers) -> None:
        await workers.start()
        task = asyncio.ensure_future(workers.run(chat(ENDLESS), Allowance(template_seconds=30)))
        for pid in await at_work(workers):
            os.kill(pid, number)
        with pytest.raises(InvalidRequest, match="crash") as caught:
            await task
        assert caught.value.code == "template_failed"
        assert (await workers.run(chat(), ALLOWANCE)).ids

    in_pool(test)


def test_a_fault_of_ours_is_no_fault_of_the_client(monkeypatch):
    monkeypatch.setenv("TENON_FAILPOINTS", "template@Faulty:ValueError,tokenise@Memory:MemoryError")

    async def test(workers: Workers) -> None:
        with pytest.raises(RequestFailed, match="ValueError"):
            await workers.run(chat(content="Faulty"), ALLOWANCE)
        with pytest.raises(InvalidRequest, match="MiB"):
            await workers.run(chat(content="Memory"), ALLOWANCE)
        assert (await workers.run(chat(), ALLOWANCE)).ids

    in_pool(test)


def test_text_that_cannot_be_sent():
    async def test(workers: Workers) -> None:
        with pytest.raises(InvalidRequest, match="Unicode"):
            await workers.run(Text("\ud800"), ALLOWANCE)

    in_pool(test)


def test_stopped_workers_take_no_jobs_and_leave_no_process():
    async def main() -> None:
        workers = Workers(EngineArgs(load_format="oracle").resolve())
        await workers.start()
        task = asyncio.ensure_future(workers.run(chat(ENDLESS), Allowance(template_seconds=60)))
        pids = [workers.nursery_pid, *await at_work(workers)]
        await workers.stop()
        with pytest.raises(Unavailable):
            await task
        with pytest.raises(Unavailable):
            await workers.run(chat(), ALLOWANCE)
        for pid in pids:
            while lives(pid):
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_they_end_with_their_parent():
    """The thread that started them is the parent that the kernel watches."""
    pids = []

    def run() -> None:
        async def main() -> None:
            workers = Workers(EngineArgs(load_format="oracle").resolve())
            await workers.start()
            pids.extend([workers.nursery_pid, *children(workers)])
            kept.append(workers)

        asyncio.run(main())

    kept: list[Workers] = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(pids) == 2
    for pid in pids:
        while lives(pid):
            threading.Event().wait(0.01)
