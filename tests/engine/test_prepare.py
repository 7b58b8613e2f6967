"""The step's arrays, against their plain definition, for random schedules; and rows of the table."""

import random

import numpy as np
import pytest

from tenon.core.messages import AddRequest
from tenon.core.request import Request
from tenon.core.sampling import SamplingParams
from tenon.core.schedule import Schedule
from tenon.core.spec import KVGroup
from tenon.engine.prepare import EXAMPLE_RUN, Preparer
from tenon.engine.table import Table

BLOCK = 4
GROUPS = (KVGroup("full", 1), KVGroup("full", 1, window=9), KVGroup("full", 1, local_chunk=12, parts=3))


def make_request(rng, seq: int, **params) -> Request:
    prompt = [rng.randrange(1000) for _ in range(rng.randint(1, 60))]
    add = AddRequest(request_id=str(seq), prompt_token_ids=prompt, params=SamplingParams(seed=seq, **params))
    request = Request(add, seq, 100)
    request.blocks = [[rng.randrange(500) for _ in range(-(-len(prompt) // BLOCK))] for _ in GROUPS]
    return request


def make_preparer(rows=16) -> tuple[Table, Preparer]:
    table = Table(rows, 25, GROUPS)
    return table, Preparer(table, max_tokens=2000, max_num_seqs=rows, block_size=BLOCK, stateful=True)


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
            request.state_in, request.state_out = rng.randint(-1, 50), rng.randint(0, 50)
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
    ids, positions, starts, lengths, rows = [], [], [0], [], []
    for request, count in zip(step.requests, step.num_tokens, strict=True):
        for position in range(request.num_computed, request.num_computed + count):
            ids.append(request.tokens[position])
            positions.append(position)
        if positions[-1] == len(request.tokens) - 1:
            rows.append(len(ids) - 1)
        starts.append(len(ids))
        lengths.append(positions[-1] + 1)
    states_in, states_out = [r.state_in for r in step.requests], [r.state_out for r in step.requests]
    expected = (ids, positions, starts, lengths, rows, states_in, states_out)
    got = (
        batch.token_ids_T,
        batch.positions_T,
        batch.query_start_R1,
        batch.context_len_R,
        batch.logit_rows_S,
        batch.state_in_R,
        batch.state_out_R,
    )
    for array, values in zip(got, expected, strict=True):
        assert array.dtype == np.int32
        assert array.tolist() == values
    for index, group in enumerate(GROUPS):
        check_group(batch.group(index), group, index, step)


def check_group(batch, group: KVGroup, index: int, step: Schedule) -> None:
    """Slots of the step's tokens, and the blocks that they see."""
    slots = []
    for r, (request, count) in enumerate(zip(step.requests, step.num_tokens, strict=True)):
        blocks = [block * group.parts for block in request.blocks[index]]
        start = request.num_computed
        slots += [blocks[p // BLOCK] * BLOCK + p % BLOCK for p in range(start, start + count)]
        first, stop = group.first_seen(start) // BLOCK, (start + count - 1) // BLOCK + 1
        assert batch.block_table_RB[r, first:stop].tolist() == blocks[first:stop]
        assert batch.num_requests == len(step.requests)
    assert batch.slots_T.tolist() == slots


def addresses(batch) -> tuple[int, ...]:
    views = [batch, *batch.others]
    arrays = [getattr(view, name) for view in views for name in batch.__slots__]
    found = tuple(array.ctypes.data for array in arrays if isinstance(array, np.ndarray))
    assert len(set(found)) == 10 + 2 * len(batch.others)
    return found


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


def test_the_beginning_of_the_example_is_a_step():
    _, preparer = make_preparer()
    batch = preparer.example()
    tokens, requests, sampled = EXAMPLE_RUN
    assert batch.query_start_R1[requests] == tokens
    assert (batch.logit_rows_S[:sampled] < tokens).all()


def test_prompt_rows_of_a_chunk(seed):
    rng = random.Random(seed)
    table, preparer = make_preparer()
    request = make_request(rng, 0, prompt_logprobs=1)
    request.tokens, request.num_prompt = list(range(100, 110)), 10
    request.blocks = [[1, 2, 3] for _ in GROUPS]
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
    one.blocks[1].append(499)
    table.update(Schedule(grown=[one]))
    assert table.version == version
    assert table.block_tables[1][one.row, len(one.blocks[1]) - 1] == 499
    table.update(Schedule(preempted=[one], entered=[three]))
    assert table.version > version
    assert one.row == -1
    assert table.temperature_R[three.row] == 0.5
    assert table.top_k_R[three.row] == 2
    table.leave(one)
    assert table.num_rows == 2
