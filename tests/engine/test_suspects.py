"""Who is refused after a crash, and who is not: over requests that live in this test only."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenon.engine import suspects
from tenon.engine.suspects import LIFETIME, Suspects
from tenon.errors import DeadlyRequest


@dataclass(eq=False)
class Flight:
    content: str
    has_output: bool = False
    finished: bool = False
    started: bool = False
    request_id: str = "an id"

    def start(self) -> None:
        self.started = True


class World:
    """An engine that dies of some requests; every client sends its request again until it has an answer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.suspects = Suspects(lambda: self.now)
        self.flights: list[Flight] = []
        self.crashes = 0

    def enter(self, content: str) -> Flight:
        flight = Flight(content)
        self.suspects.enter(flight, flight.start)
        self.flights.append(flight)
        return flight

    def finish(self, flight: Flight) -> None:
        flight.has_output = flight.finished = True
        self.flights.remove(flight)
        self.suspects.review()

    def crash(self) -> None:
        self.crashes += 1
        self.suspects.crashed(self.flights)
        self.flights.clear()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were many suspects."""
    monkeypatch.setattr(suspects, "FEW", 0)


def test_without_a_crash_everything_starts_at_once(world):
    assert all(world.enter(name).started for name in "abca")
    assert len(world.suspects) == 0


def test_few_suspects_run_one_at_a_time_to_their_end(world):
    for name in "ab":
        world.enter(name)
    world.crash()
    a, b, other = (world.enter(name) for name in ("a", "b", "other"))
    a.has_output = True
    world.suspects.review()
    assert (a.started, b.started, other.started) == (True, False, True)
    world.finish(a)
    assert b.started


def test_many_suspects_run_one_at_a_time_until_their_first_token(world, many):
    for name in "abc":
        world.enter(name)
    world.crash()
    a, b, c, other = (world.enter(name) for name in ("a", "b", "c", "other"))
    assert (a.started, b.started, c.started, other.started) == (True, False, False, True)
    a.has_output = True
    world.suspects.review()
    assert (b.started, c.started) == (True, False)
    world.finish(b)
    assert c.started
    assert world.enter("b").started, "it is cleared"


def test_one_suspect_in_the_second_crash_is_guilty_and_nobody_else(world):
    for name in "abc":
        world.enter(name)
    world.crash()
    for name in ("a", "b", "c", "other"):
        world.enter(name)
    world.crash()
    with pytest.raises(DeadlyRequest, match="died again"):
        world.enter("a")
    assert world.enter("other").started
    b, c = world.enter("b"), world.enter("c")
    assert (b.started, c.started) == (True, False), "they have never run alone"


def test_a_crash_without_it_leaves_a_suspect_what_it_is(world):
    """It was sent to an engine that was frozen before and never took it."""
    world.enter("a")
    world.crash()
    world.enter("a")
    world.flights.clear()
    world.crash()
    assert world.enter("a").started
    world.crash()
    with pytest.raises(DeadlyRequest):
        world.enter("a")


def test_several_suspects_in_the_second_crash_run_alone_to_their_end(world, many):
    for name in "abc":
        world.enter(name)
    world.crash()
    a, b, c = (world.enter(name) for name in "abc")
    a.has_output = True
    world.suspects.review()
    assert b.started
    assert not c.started
    world.crash()
    a, b, c = (world.enter(name) for name in "abc")
    a.has_output = True
    world.suspects.review()
    assert not b.started, "a has its first token, but must come to its end"
    world.finish(a)
    assert b.started
    assert not c.started
    world.crash()
    with pytest.raises(DeadlyRequest):
        world.enter("b")
    assert world.enter("a").started
    assert world.enter("c").started


def test_who_leaves_lets_the_next_one_run_and_stays_a_suspect(world):
    for name in "ab":
        world.enter(name)
    world.crash()
    a, b = world.enter("a"), world.enter("b")
    a.finished = True
    world.flights.remove(a)
    world.suspects.leave(a)
    assert b.started
    assert not world.enter("a").started
    world.suspects.leave(b)


def test_who_waits_and_leaves_is_never_started(world):
    for name in "ab":
        world.enter(name)
    world.crash()
    a, b = world.enter("a"), world.enter("b")
    world.suspects.leave(b)
    world.finish(a)
    assert not b.started


def test_suspicion_and_guilt_are_forgotten(world):
    world.enter("a")
    world.crash()
    world.now = LIFETIME - 1
    world.enter("a")
    world.crash()
    with pytest.raises(DeadlyRequest):
        world.enter("a")
    world.now += LIFETIME - 1
    with pytest.raises(DeadlyRequest):
        world.enter("a")
    world.now += 1
    assert world.enter("a").started
    assert len(world.suspects) == 0


def test_memory_is_bounded(world, monkeypatch):
    monkeypatch.setattr(suspects, "MOST", 10)
    for i in range(50):
        world.enter(str(i))
    world.crash()
    assert len(world.suspects) == 10


@given(
    innocents=st.integers(0, 30), dies_at=st.integers(0, 3), steps=st.integers(1, 4), seed=st.integers(0, 999)
)
@settings(max_examples=200, deadline=None)
def test_one_request_that_kills_is_refused_and_all_others_are_answered(innocents, dies_at, steps, seed):
    """`dies_at` tokens after its start the guilty one kills the engine; innocents take `steps` tokens."""
    rng = random.Random(seed)
    world = World()
    wanted = {f"innocent {i}" for i in range(innocents)} | {"guilty"}
    tokens: dict[Flight, int] = {}
    refused = False
    for _ in range(1000):
        here = {flight.content for flight in world.flights}
        for content in rng.sample(sorted(wanted - here), len(wanted - here)):
            try:
                world.enter(content)
            except DeadlyRequest:
                assert content == "guilty"
                refused = True
                wanted.discard(content)
        started = [flight for flight in world.flights if flight.started]
        if any(f.content == "guilty" and tokens.get(f, 0) == dies_at for f in started):
            world.crash()
            continue
        for flight in started:
            tokens[flight] = tokens.get(flight, 0) + 1
            flight.has_output = True
            if flight.content != "guilty" and tokens[flight] == steps:
                world.finish(flight)
                wanted.discard(flight.content)
        world.suspects.review()
        if not wanted:
            break
    assert refused
    assert not wanted
    assert world.crashes <= (2 if innocents < suspects.FEW else 3)
