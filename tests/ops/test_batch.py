"""Filling a step's buffers: every backend writes what the definition says, and nothing behind it."""

import random
from dataclasses import replace

import numpy as np
import pytest

from tenon import ops
from tenon.core.batch import Batch
from tenon.core.spec import KVGroup
from tenon.ops import select

BLOCK = 4


GROUPS = (KVGroup("full", 1), KVGroup("full", 1, window=9), KVGroup("full", 1, local_chunk=12))


def make_buffers(tokens: int, requests: int, blocks: int) -> Batch:
    sizes = [tokens, tokens, tokens, requests + 1, requests, (requests, blocks), requests]
    first, *others = (Batch(*(np.full(size, -7, np.int32) for size in sizes)) for _ in GROUPS)
    return replace(first, others=tuple(others))


@pytest.mark.parametrize("backend", select.backends())
def test_matches_its_definition(backend, seed):
    rng = random.Random(seed)
    for _ in range(20):
        requests = rng.randint(1, 9)
        starts = [rng.randrange(30) for _ in range(requests)]
        counts = [rng.choice([1, 1, rng.randint(1, 12)]) for _ in range(requests)]
        rows = rng.sample(range(12), requests)
        token_ids = [rng.randrange(2**31) for _ in range(sum(counts))]
        logit_rows = sorted(rng.sample(range(len(token_ids)), rng.randint(0, requests)))
        tables = [
            np.array([[rng.randrange(500) for _ in range(11)] for _ in range(12)], np.int32) for _ in GROUPS
        ]
        step = (GROUPS, tables, BLOCK, token_ids, rows, starts, counts, logit_rows)
        sizes = (len(token_ids) + 3, requests + 2, 11)
        expected, got = make_buffers(*sizes), make_buffers(*sizes)
        ops.fill_batch.reference(expected, *step)
        with select.forced(backend):
            ops.fill_batch(got, *step)
        for name in Batch.__slots__[:7]:
            for index in range(len(GROUPS)):
                one, other = expected.group(index), got.group(index)
                assert np.array_equal(getattr(one, name), getattr(other, name)), (name, index)


def test_counts_that_do_not_add_up_are_refused():
    for counts in ([2, 2], [0, 3]):
        with pytest.raises(ValueError, match=r"add up|broadcast|shape"):
            ops.fill_batch(
                make_buffers(3, 2, 2),
                GROUPS,
                [np.zeros((2, 2), np.int32)] * 3,
                BLOCK,
                [1, 2, 3],
                [0, 1],
                [0, 0],
                counts,
                [],
            )
