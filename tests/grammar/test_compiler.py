"""Compiling off the thread: what is ready, what fails alone, what is kept."""

import threading
import time

import pytest

from tenon.core.structured import StructuredOutputs
from tenon.grammar.compiler import MAX_LEFT_BEHIND, Cache, Compiler
from tenon.grammar.matcher import GrammarError

from .vocabularies import make


class Fake:
    """A program of a given size."""

    def __init__(self, num_bytes: int = 1) -> None:
        self.num_bytes = num_bytes


def asked(text: str) -> StructuredOutputs:
    return StructuredOutputs(grammar=text)


def until_done(compiler: Compiler, *tickets) -> None:
    deadline = time.monotonic() + 20
    while not all(ticket.done for ticket in tickets):
        assert time.monotonic() < deadline
        compiler.wait(0.01)
        compiler.check_time()


def test_programs_errors_and_the_cache():
    compiled = []

    def compile(outputs, vocabulary):
        compiled.append(outputs.grammar)
        if "bad" in outputs.grammar:
            raise GrammarError("bad")
        if "bug" in outputs.grammar:
            raise RuntimeError("bug")
        return Fake()

    loads = []
    compiler = Compiler(lambda: loads.append(1) or make(), compile=compile)
    tickets = [compiler.submit(asked(text)) for text in ("a", "bad", "bug", "a", "b")]
    until_done(compiler, *tickets)
    assert [type(t.error).__name__ for t in tickets] == [
        "NoneType",
        "GrammarError",
        "RuntimeError",
        *["NoneType"] * 2,
    ]
    assert tickets[0].program is tickets[3].program
    assert sorted(compiled) == ["a", "b", "bad", "bug"]
    assert compiler.submit(asked("a")).done
    assert loads == [1]
    assert compiler.submit(None).done


def test_no_program_but_the_vocabulary():
    compiler = Compiler(make)
    ticket = compiler.submit(None)
    until_done(compiler, ticket)
    assert (ticket.program, ticket.error) == (None, None)
    assert compiler.vocabulary is not None


def test_a_compilation_that_hangs_fails_alone():
    release = threading.Event()

    def compile(outputs, vocabulary):
        if outputs.grammar == "hang":
            release.wait(60)
        return Fake()

    compiler = Compiler(make, compile=compile, seconds=0.05)
    hanging = [compiler.submit(asked("hang")) for _ in range(MAX_LEFT_BEHIND)]
    good = compiler.submit(asked("good"))
    until_done(compiler, good, *hanging)
    assert good.error is None
    assert all("longer than" in str(ticket.error) for ticket in hanging)
    with pytest.raises(GrammarError, match="too many"):
        compiler.submit(asked("more"))
    release.set()
    for thread in compiler._left_behind:
        thread.join()
    until_done(compiler, ticket := compiler.submit(asked("more")))
    assert ticket.error is None
    assert all(ticket.program is None for ticket in hanging)


def test_what_nobody_waits_for_is_not_compiled():
    compiled, release = [], threading.Event()

    def compile(outputs, vocabulary):
        compiled.append(outputs.grammar)
        release.wait(60)
        return Fake()

    compiler = Compiler(make, compile=compile)
    first, dropped, last = [compiler.submit(asked(text)) for text in ("first", "dropped", "last")]
    compiler.drop(dropped)
    release.set()
    until_done(compiler, first, last)
    compiler.drop(first)  # nothing
    assert compiled == ["first", "last"]
    assert not dropped.done


def test_the_cache_is_bounded_by_bytes():
    cache = Cache(10)
    for name, size in [("a", 4), ("b", 4)]:
        cache.put(name, Fake(size))
    assert cache.get("a")
    cache.put("c", Fake(4))
    assert [cache.get(name) is not None for name in "abc"] == [True, False, True]
    cache.put("huge", Fake(11))
    assert cache.get("huge") is None
    cache.put("all", Fake(10))
    assert cache.num_bytes == 10
    assert cache.get("a") is None
