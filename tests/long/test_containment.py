"""Every fault of tests/server/test_containment.py and tests/engine/test_containment.py, in every kind of
request and at every place."""

from __future__ import annotations

import asyncio

import pytest

from tenon.util.failpoint import arm
from tests.engine.test_containment import fail_each
from tests.history import judge, meaning
from tests.server.test_containment import (
    FAULTY,
    IN_PROCESS,
    check_containment,
    check_failed,
    expected,  # noqa: F401  (a fixture)
    kinds,
    meets,
    oracle_server,
)

KINDS = list(kinds(""))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", ["ValueError", "MemoryError", "sleep=0.003"])
async def test_every_stage_of_every_kind(kind, action, expected):  # noqa: F811
    async with oracle_server() as server:
        for stage in IN_PROCESS:
            if not meets(kind, stage):
                continue
            record = await check_containment(server, expected, stage, action, kind)
            if action.startswith("sleep"):
                judge(record)
                assert record.error is None
            else:
                check_failed(record, stage)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", ["ValueError", "MemoryError"])
async def test_fail_the_nth_place_of_one_request(kind, action, expected):  # noqa: F811
    """Until a run meets fewer places than that. A single fault may be survived: then the answer is right."""
    right = None
    async with oracle_server() as server:
        right = meaning(await server.one(kind, FAULTY, f"{FAULTY}-0"))
        for n in range(1, 10_000):
            with arm(f"*@{FAULTY}:{action}:{n}") as (fault,):
                *others, record = await server.others(server.one(kind, FAULTY, f"{FAULTY}-1"))
            for other in others:
                judge(other)
                assert meaning(other) == expected[other.request_id], n
            if record.whole:
                judge(record)
                if record.error is None:
                    assert meaning(record) == right, n
            await server.check_nothing_is_left()
            if not fault.fired:
                break
        assert n > 20


@pytest.mark.parametrize("action", ["ValueError", "MemoryError"])
async def test_fail_the_nth_place_of_all(action, expected):  # noqa: F811
    """No marker: whoever comes by. Every 23rd place of all that a dozen requests meet."""
    for start in (1, 9):
        async with oracle_server() as server:
            for n in range(start, 100_000, 23):
                with arm(f"*:{action}:{n}") as (fault,):
                    records = await server.others()
                failed = 0
                for record in records:
                    if not record.whole or record.error:
                        failed += 1
                        continue
                    judge(record)
                    assert meaning(record) == expected[record.request_id], n
                assert failed <= 1, n
                await server.check_nothing_is_left()
                if not fault.fired:
                    break
            assert n > 500


@pytest.mark.parametrize("action", ["ValueError", "MemoryError"])
def test_fail_every_place_in_the_engine(action):
    fail_each(action)


def test_the_runs_are_not_alike_by_chance():
    """The order in which requests come differs from run to run, their answers do not."""

    async def twice() -> list:
        async with oracle_server() as server:
            return [{r.request_id: meaning(r) for r in await server.others()} for _ in range(4)]

    first, *rest = asyncio.run(twice())
    assert all(other == first for other in rest)
    assert len({str(answer) for answer in first.values()}) == len(first)
