"""Grammars made to break compilers are refused, or compiled within limits; then a good one is compiled."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import numpy as np
import pytest

from tenon.config import EngineArgs
from tenon.core.structured import StructuredOutputs
from tenon.engine import oracle
from tenon.engine.jobs.pool import Workers
from tenon.engine.jobs.work import Allowance, Grammar
from tenon.errors import InvalidRequest
from tenon.grammar import select
from tenon.grammar.matcher import GrammarError
from tenon.grammar.vocabulary import of_tokenizer
from tests.grammar.bombs import CORPUS, HARMLESS, random_bomb
from tests.grammar.vocabularies import ids_of

VOCAB = oracle.tokenizer().vocab_size


async def outcome(workers: Workers, bomb: dict[str, Any], allowance: Allowance) -> InvalidRequest | None:
    """What the request is told; None: its grammar can be compiled."""
    try:
        await workers.run(Grammar(msgspec.convert(bomb, StructuredOutputs), VOCAB, (oracle.EOS,)), allowance)
    except InvalidRequest as error:
        return error
    return None


async def outcomes(bombs: list[dict[str, Any]], canaries: int) -> list[InvalidRequest | None]:
    """Of all of them, with good grammars in between, which nothing may keep from being compiled."""
    allowance = Allowance(grammar_seconds=20.0)  # other work on the machine must not count
    workers = Workers(EngineArgs(load_format="oracle").resolve())
    out = []
    try:
        for i, bomb in enumerate(bombs):
            out.append(await outcome(workers, bomb, allowance))
            if i % canaries == 0:
                assert await outcome(workers, {"regex": f"good{i}"}, allowance) is None
    finally:
        await workers.stop()
    return out


def test_every_bomb_of_the_corpus():
    found = asyncio.run(outcomes(list(CORPUS.values()), canaries=1))
    for name, error in zip(CORPUS, found, strict=True):
        if name in HARMLESS:
            assert error is None, f"{name}: {error}"
        else:
            assert error is not None, f"{name} was compiled"
            assert error.param.startswith("structured_outputs")
            assert len(str(error)) < 2000


def test_random_bombs(seed):
    rng = random.Random(seed)
    bombs = [random_bomb(rng) for _ in range(60)]
    for bomb, error in zip(bombs, asyncio.run(outcomes(bombs, canaries=10)), strict=True):
        assert error is None or error.code == "invalid_grammar" or "structured_outputs" in str(error), bomb


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_outputs_of_what_was_compiled(name, seed):
    """A step either finds its tokens or says that the grammar is too much."""
    rng = random.Random(seed)
    vocabulary = of_tokenizer(oracle.tokenizer(), VOCAB, (oracle.EOS,))
    matcher = select.compile(msgspec.convert(CORPUS[name], StructuredOutputs), vocabulary).matcher()
    mask_W = np.zeros(vocabulary.words, np.int32)
    try:
        for _ in range(40):
            matcher.fill_mask(mask_W)
            token = rng.choice(ids_of(mask_W, vocabulary))
            if token in vocabulary.eos_ids or not matcher.accept(token):  # it is too much to go on: an error
                break
    except GrammarError:
        pass
