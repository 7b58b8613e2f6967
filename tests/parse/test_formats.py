"""Every format's own cases, however the output is cut into pieces."""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Iterable

import pytest

from tenon.parse import formats
from tenon.parse.events import CallDelta, CallStart, ContentDelta, End, Parsed, ReasoningDelta, fold
from tenon.parse.format import Case, Format
from tenon.parse.machine import Parser, parse

ALL = [
    pytest.param(name, case, id=f"{name}: {case.name}")
    for name in formats.names()
    for case in formats.cases(name)
]
# Of every case: all splits into two, and so many others. For scripts/mutate.py, which runs them often, fewer.
MUTATION = "TENON_MUTATION" in os.environ
STEP, RANDOM_SPLITS = (11, 1) if MUTATION else (1, 200)


def streamed(table: Format, case: Case, pieces: Iterable[str]) -> Parsed:
    numbers = itertools.count()
    parser = Parser(table, case.tools, case.prompt, new_id=lambda: f"id{next(numbers)}")
    events = [event for piece in pieces for event in parser.push(piece)]
    events += parser.finish()
    assert isinstance(events[-1], End)
    check_order(events)
    return fold(events)


def check_order(events: list) -> None:
    """No empty deltas; arguments belong to the call that began last; indices count up."""
    begun = 0
    for event in events[:-1]:
        match event:
            case ReasoningDelta(text) | ContentDelta(text):
                assert text
            case CallStart(index, call_id, name):
                assert (index, bool(call_id), bool(name)) == (begun, True, True)
                begun += 1
            case CallDelta(index, text):
                assert index == begun - 1
                assert text
            case _:
                raise AssertionError(event)


@pytest.mark.parametrize(("name", "case"), ALL)
def test_case(name, case):
    table = formats.load(name)
    got = parse(table, case.text, case.tools, case.prompt)
    assert (got.reasoning, got.content) == (case.reasoning, case.content)
    assert [call.name for call in got.tool_calls] == [name for name, _ in case.calls]
    for call, (_, arguments) in zip(got.tool_calls, case.calls, strict=True):
        if isinstance(arguments, str):
            assert call.arguments == arguments
        else:
            assert json.loads(call.arguments) == arguments


@pytest.mark.parametrize(("name", "case"), ALL)
def test_every_split_gives_the_same(name, case, seed):
    table, text = formats.load(name), case.text
    whole = streamed(table, case, [text])
    for cut in range(1, len(text), STEP):
        assert streamed(table, case, [text[:cut], text[cut:]]) == whole, cut
    assert streamed(table, case, text) == whole
    rng = random.Random(seed)
    for _ in range(RANDOM_SPLITS if len(text) > 2 else 0):
        cuts = sorted(rng.sample(range(1, len(text)), rng.randint(1, min(len(text) - 1, 12))))
        pieces = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
        assert streamed(table, case, pieces) == whole, pieces


def test_names_of_cases_are_unique():
    for name in formats.names():
        names = [case.name for case in formats.cases(name)]
        assert len(names) == len(set(names)), name


def test_every_format_has_the_cases_it_must_have():
    for name in set(formats.names()) - {"plain"}:
        table, cases = formats.load(name), formats.cases(name)
        if table.calls or table.channels:
            assert any(len(case.calls) > 1 for case in cases), name
            assert any(case.calls and case.content for case in cases), name
            assert any(isinstance(arguments, str) for case in cases for _, arguments in case.calls), name
        if table.reasoning or table.channels:
            assert any(case.reasoning and case.content for case in cases), name
            assert any(case.reasoning and not case.content and not case.calls for case in cases), name
