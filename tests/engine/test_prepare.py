"""The step's arrays, against their plain definition, for random schedules; and rows of the table."""

import random

import numpy as np
import pytest

from tenon.core.messages import AddRequest
from tenon.core.request import Request
from tenon.core.sampling import SamplingParams
from tenon.core.schedule import Schedule
from tenon.engine.prepare import Preparer
from tenon.engine.table import Table

BLOCK = 4


def make_request(rng, seq: int, **params) -> Request:
    prompt = [rng.randrange(1000) for _ in range(rng.randint(1, 60))]
    add = AddRequest(request_id=str(seq), prompt_token_ids=prompt, params=SamplingParams(seed=seq, **params))
    request = Request(add, seq, 100)
    request.blocks = [rng.randrange(500) for _ in range(-(-len(prompt) // BLOCK))]
    return request


def make_preparer(rows=16) -> tuple[Table, Preparer]:
    table = Table(rows, 25)
    return table, Preparer(table, max_tokens=2000, max_num_seqs=rows, block_size=BLOCK)


@pytest.mark.parametrize("decode", [False, True])
def test_arrays_match_their_definition(decode, seed):
    rng = random.Random(seed)
    table, preparer = make_preparer()
    for _ in range(30):
        step = Schedule()
        step.entered = [make_request(rng, i) for i in range(rng.randint(1, 16))]
        table.update(step)
        for request in step.entered:
            request.num_computed = rng.randint(0, len(request.tokens) - 1)
            step.add(request, 1 if decode else rng.randint(1, len(request.tokens) - request.num_computed))
        prepared = preparer.prepare(step)
        check(prepared.batch, step)
        assert prepared.sampled == [
            r
            for r, n in zip(step.requests, step.num_tokens, strict=True)
            if r.num_computed + n == len(r.tokens)
        ]
        for request in step.entered:
            table.leave(request)
        assert table.num_rows == 0


def check(batch, step: Schedule) -> None:
    ids, positions, slots, starts, lengths, rows = [], [], [], [0], [], []
    for request, count in zip(step.requests, step.num_tokens, strict=True):
        for position in range(request.num_computed, request.num_computed + count):
            ids.append(request.tokens[position])
            positions.append(position)
            slots.append(request.blocks[position // BLOCK] * BLOCK + position % BLOCK)
        if positions[-1] == len(request.tokens) - 1:
            rows.append(len(ids) - 1)
        starts.append(len(ids))
        lengths.append(positions[-1] + 1)
    expected = (ids, positions, slots, starts, lengths, rows)
    got = (
        batch.token_ids_T,
        batch.positions_T,
        batch.slots_T,
        batch.query_start_R1,
        batch.context_len_R,
        batch.logit_rows_S,
    )
    for array, values in zip(got, expected, strict=True):
        assert array.dtype == np.int32
        assert array.tolist() == values
    for r, request in enumerate(step.requests):
        assert batch.block_table_RB[r, : len(request.blocks)].tolist() == request.blocks


def addresses(batch) -> tuple[int, ...]:
    arrays = [getattr(batch, name) for name in batch.__slots__]
    return tuple(array.ctypes.data for array in arrays if isinstance(array, np.ndarray))


def test_addresses_never_change(seed):
    rng = random.Random(seed)
    table, preparer = make_preparer()
    seen = set()
    for _ in range(5):
        step = Schedule()
        step.entered = [make_request(rng, i) for i in range(rng.randint(1, 10))]
        table.update(step)
        for request in step.entered:
            step.add(request, len(request.tokens))
        batch = preparer.prepare(step).batch
        seen.add(addresses(batch))
        for request in step.entered:
            table.leave(request)
    example = preparer.example()
    seen.add(addresses(example))
    assert len(seen) == 1


def test_the_example_tells_its_dimensions_apart():
    _, preparer = make_preparer(rows=2)
    batch = preparer.example()
    sizes = (batch.num_tokens, batch.num_requests, len(batch.logit_rows_S), batch.num_requests + 1)
    assert len(set(sizes)) == 4
    assert preparer.max_num_seqs >= batch.num_requests


def test_prompt_rows_of_a_chunk(seed):
    rng = random.Random(seed)
    table, preparer = make_preparer()
    request = make_request(rng, 0, prompt_logprobs=1)
    request.tokens, request.num_prompt = list(range(100, 110)), 10
    request.blocks = [1, 2, 3]
    step = Schedule(entered=[request])
    table.update(step)
    request.num_computed = 3
    request.prompt_logprobs = [None] * 4  # positions 0 to 3 are known from before a preemption
    step.add(request, 4)
    (rows,) = preparer.prepare(step).prompt_rows
    assert rows.first_row == 1
    assert rows.targets == [105, 106, 107]


def test_rows_are_handed_out_again_and_version_tells(seed):
    rng = random.Random(seed)
    table, _ = make_preparer(rows=2)
    one, two, three = (make_request(rng, i, temperature=i / 4, top_k=i) for i in range(3))
    table.update(Schedule(entered=[one, two]))
    version = table.version
    one.blocks.append(499)
    table.update(Schedule(grown=[one]))
    assert table.version == version
    assert table.block_table_RB[one.row, len(one.blocks) - 1] == 499
    table.update(Schedule(preempted=[one], entered=[three]))
    assert table.version > version
    assert one.row == -1
    assert table.temperature_R[three.row] == 0.5
    assert table.top_k_R[three.row] == 2
    table.leave(one)
    assert table.num_rows == 2
