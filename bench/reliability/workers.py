"""What killable workers cost and what they save (goals G4 and G6, tests T21 and T23).

    python bench/reliability/workers.py [MODEL]

Overhead is a chat's prompt made by a worker against the same made in place, in turns. Stalls are those of
this process's event loop, which is what a server would have: a task sleeps 5 ms at a time and notes how late
it wakes, or how much processor time the process took meanwhile if that is less. For an idle machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import msgspec  # noqa: E402

from tenon.config import EngineArgs  # noqa: E402
from tenon.core.structured import StructuredOutputs  # noqa: E402
from tenon.engine.jobs.bench import Bench  # noqa: E402
from tenon.engine.jobs.pool import Workers  # noqa: E402
from tenon.engine.jobs.work import Allowance, Chat, Grammar, Job, Text  # noqa: E402
from tenon.engine.tokenizer import load_tokenizer_for  # noqa: E402
from tenon.errors import InvalidRequest  # noqa: E402
from tenon.text.conversation import Conversation  # noqa: E402
from tests.grammar.bombs import CORPUS, random_bomb  # noqa: E402

MiB = 1 << 20
BOMBS = [*CORPUS.values(), *(random_bomb(random.Random(seed)) for seed in range(500))]
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
HELLO = "Why is the sky blue? Answer in one sentence."
OVERHEAD_MS, KILL_SECONDS, REPLACE_MS, STALL_MS, GRAMMAR_SECONDS = 0.5, 1.1, 50.0, 250.0, 2.1


def chat(template: str | None = None) -> Chat:
    return Chat(Conversation(messages=[{"role": "user", "content": HELLO}], template=template))


class Lag:
    """The stalls of this event loop."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def probe(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before, used = loop.time(), time.process_time()
            await asyncio.sleep(0.005)
            late = min(loop.time() - before - 0.005, time.process_time() - used)
            self.worst = max(self.worst, 1000 * late)


async def seconds(work: Awaitable[object]) -> float:
    begin = time.perf_counter()
    with contextlib.suppress(InvalidRequest):
        await work
    return time.perf_counter() - begin


def show(what: str, figure: float, unit: str, goal: float) -> bool:
    good = figure <= goal
    print(
        f"{'pass' if good else 'FAIL'}  {what}: {figure:.3f} {unit} (goal: at most {goal:g} {unit})",
        flush=True,
    )
    return good


async def main(model: str) -> bool:
    config = EngineArgs(model=model).resolve()
    bench, workers, allowance = Bench(load_tokenizer_for(config)), Workers(config), Allowance()
    lag = Lag()
    probing = asyncio.ensure_future(lag.probe())
    try:
        print(f"start of workers: {await seconds(workers.start()):.2f} s")
        out = [await overhead(bench, workers, allowance)]
        lag.worst = 0.0
        out += await bombs(workers, allowance)
        out += await texts(workers, allowance)
        vocab = bench.tokenizer.vocab_size
        out += await grammars(workers, allowance, lambda o: Grammar(o, vocab, bench.tokenizer.eos_token_ids))
        out.append(show("longest stall of the event loop in all that", lag.worst, "ms", STALL_MS))
        return all(out)
    finally:
        probing.cancel()
        await workers.stop()


async def overhead(bench: Bench, workers: Workers, allowance: Allowance) -> bool:
    job, here, there = chat(), [], []
    for _ in range(1000):
        begin = time.perf_counter()
        bench.do(job)
        here.append(time.perf_counter() - begin)
        there.append(await seconds(workers.run(job, allowance)))
        await asyncio.sleep(0)
    in_place, in_worker = statistics.median(here), statistics.median(there)
    print(f"a short chat's prompt: in place {1000 * in_place:.3f} ms, by a worker {1000 * in_worker:.3f} ms")
    return show("overhead for a short chat, median", 1000 * (in_worker - in_place), "ms", OVERHEAD_MS)


async def bombs(workers: Workers, allowance: Allowance) -> list[bool]:
    killed, replaced = [], []
    for _ in range(5):
        killed.append(await seconds(workers.run(chat(ENDLESS), allowance)))
        replaced.append(await seconds(workers.run(chat(), allowance)))
    endless = [asyncio.ensure_future(seconds(workers.run(chat(ENDLESS), allowance))) for _ in range(3)]
    await asyncio.sleep(0.1)
    beside = [await seconds(workers.run(chat(), allowance)) for _ in range(20)]
    await asyncio.gather(*endless)
    print(f"a short chat beside three endless templates: {1000 * statistics.median(beside):.1f} ms, median")
    return [
        show("an endless template is refused after", max(killed), "s", KILL_SECONDS),
        show(
            "the next request, on a new worker, takes", 1000 * statistics.median(replaced), "ms", REPLACE_MS
        ),
    ]


async def texts(workers: Workers, allowance: Allowance) -> list[bool]:
    out = []
    for name, unit in (("prose", "It was a fine day in May. "), ("one letter", "a"), ("spaces", " ")):
        text = (unit * (8 * MiB))[: 8 * MiB]
        took = await seconds(workers.run(Text(text), allowance))
        out.append(
            show(f"8 MiB of {name} are tokenised, or refused, in", took, "s", allowance.tokenize_seconds + 1)
        )
    return out


async def grammars(
    workers: Workers, allowance: Allowance, job: Callable[[StructuredOutputs], Job]
) -> list[bool]:
    worst, compiled = 0.0, 0
    await workers.run(job(StructuredOutputs(regex="a")), allowance)
    for bomb in BOMBS:
        try:
            outputs = msgspec.convert(bomb, StructuredOutputs)
        except InvalidRequest:
            continue
        before = len(workers.known)
        worst = max(worst, await seconds(workers.run(job(outputs), allowance)))
        compiled += len(workers.known) > before and next(reversed(workers.known.values())) is None
    print(f"{len(BOMBS)} grammars made to break compilers: {compiled} compiled, the others refused")
    return [show("the longest of them took", worst, "s", GRAMMAR_SECONDS)]


if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("TENON_TEST_GGUF", "smollm2")
    sys.exit(not asyncio.run(main(name)))
