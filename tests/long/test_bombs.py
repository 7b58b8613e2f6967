"""Many grammars: bombs by the thousand, and more distinct schemas than a server should remember."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

from tenon.config import EngineArgs
from tenon.core.structured import StructuredOutputs
from tenon.engine import oracle
from tenon.engine.jobs.pool import MAX_KNOWN, Workers
from tenon.engine.jobs.work import Allowance, Grammar
from tenon.grammar.compiler import CACHE_BYTES, CACHE_COUNT, Compiler
from tenon.grammar.vocabulary import of_tokenizer
from tests.engine.jobs.test_bombs import VOCAB, outcomes
from tests.grammar.bombs import random_bomb

MiB = 1 << 20


def resident(pid: int | str = "self") -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def schema(i: int) -> StructuredOutputs:
    names = {f"field_{i}_{k}": {"type": "string", "maxLength": i % 50 + 1} for k in range(5)}
    return StructuredOutputs(json={"type": "object", "properties": names, "required": list(names)})


def test_five_thousand_bombs(seed):
    rng = random.Random(seed)
    for _ in range(50):
        bombs = [random_bomb(rng) for _ in range(100)]
        for bomb, error in zip(bombs, asyncio.run(outcomes(bombs, canaries=10)), strict=True):
            assert error is None or "structured_outputs" in (error.param or ""), json.dumps(bomb)


def test_twenty_thousand_schemas_take_no_more_memory_than_some():
    """In the engine, which keeps programs, and in a worker, which keeps none."""
    vocabulary = of_tokenizer(oracle.tokenizer(), VOCAB, (oracle.EOS,))
    compiler = Compiler(lambda: vocabulary, seconds=60)
    begin = 0
    for i in range(20_000):
        ticket = compiler.submit(schema(i))
        while not ticket.done:
            compiler.wait(0.01)
        assert ticket.error is None
        assert compiler.cache.num_bytes <= CACHE_BYTES
        assert len(compiler.cache) <= CACHE_COUNT
        if i == 1000:
            begin = resident()
    assert resident() - begin <= 64 * MiB

    async def tried() -> None:
        workers = Workers(EngineArgs(load_format="oracle").resolve())
        try:
            begin = 0
            for i in range(20_000):
                await workers.run(Grammar(schema(i), VOCAB, (oracle.EOS,)), Allowance(grammar_seconds=60))
                if i == 1000:
                    begin = resident()
            assert len(workers.known) <= MAX_KNOWN
            assert resident() - begin <= 16 * MiB
        finally:
            await workers.stop()

    asyncio.run(tried())
