"""Which models are loaded, over a clock of the test's own."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tenon.server.residency import (
    LONGEST_BACKOFF,
    PATIENCE,
    Load,
    Residency,
    Ticket,
    Unload,
)
from tenon.server.settings import RestartSettings


class World:
    """A policy, its clock, and loads and unloads that take until the test ends them."""

    def __init__(self, costs: dict[str, int], **limits: int | None) -> None:
        self.policy = Residency(costs, **limits)
        self.now = 100.0
        self.loading: set[str] = set()
        self.unloading: set[str] = set()
        self.open: list[Ticket] = []
        self.log: list[str] = []

    def ask(self, name: str, background: bool = False) -> Ticket:
        ticket = self.policy.ask(name, self.now, background=background)
        self.open.append(ticket)
        self.pump()
        return ticket

    def end(self, ticket: Ticket) -> None:
        self.policy.end(ticket, self.now)
        self.open.remove(ticket)
        self.pump()

    def loaded(self, name: str, cost: int | None = None) -> None:
        self.loading.remove(name)
        self.policy.loaded(name, self.policy.models[name].cost if cost is None else cost, self.now)
        self.pump()

    def failed(self, name: str, reason: str = "broken") -> None:
        self.loading.discard(name)
        self.policy.failed(name, reason, self.now)
        self.pump()

    def died(self, name: str) -> None:
        self.policy.died(name, "killed", self.now)
        self.pump()

    def unloaded(self, name: str) -> None:
        self.unloading.remove(name)
        self.policy.unloaded(name)
        self.pump()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.pump()

    def pump(self) -> None:
        for step in self.policy.steps(self.now):
            self.log.append(("+" if isinstance(step, Load) else "-") + step.model)
            self.carry_out(step)

    def carry_out(self, step: Load | Unload) -> None:
        (self.loading if isinstance(step, Load) else self.unloading).add(step.model)

    def have(self, *names: str) -> None:
        """Load models, in this order of use."""
        for name in names:
            ticket = self.ask(name)
            self.loaded(name)
            self.end(ticket)
            self.now += 1
        self.log.clear()


def test_concurrent_first_requests_share_one_load():
    world = World({"a": 1})
    tickets = [world.ask("a") for _ in range(5)]
    assert world.log == ["+a"]
    assert not any(ticket.granted for ticket in tickets)
    world.loaded("a")
    assert all(ticket.granted for ticket in tickets)
    assert world.ask("a").granted
    assert world.log == ["+a"]


def test_least_recently_used_goes_first():
    world = World(dict.fromkeys("abcd", 1), max_models=3)
    world.have("a", "b", "c")
    world.end(world.ask("a"))
    ticket = world.ask("d")
    assert world.log == ["-b"]
    world.unloaded("b")
    assert world.log == ["-b", "+d"]
    world.loaded("d")
    assert ticket.granted


def test_a_model_in_use_stays():
    world = World({"a": 1, "b": 1}, max_models=1)
    world.have("a")
    user = world.ask("a")
    world.ask("b")
    world.wait(PATIENCE * 10)
    assert world.log == []
    world.end(user)
    assert world.log == ["-a"]


def test_as_much_as_needed_is_unloaded():
    world = World({"a": 3, "b": 3, "c": 3, "big": 6}, max_bytes=9)
    world.have("a", "b", "c")
    world.ask("big")
    assert world.log == ["-a", "-b"]
    world.unloaded("a")
    assert world.log == ["-a", "-b"]
    world.unloaded("b")
    assert world.log == ["-a", "-b", "+big"]


def test_idle_models_are_not_unloaded_in_vain():
    world = World({"a": 3, "b": 3, "big": 6}, max_bytes=6)
    world.have("a", "b")
    user = world.ask("b")
    world.ask("big")
    assert world.log == []  # a alone would not be enough
    world.end(user)
    assert sorted(world.log) == ["-a", "-b"]


def test_who_waits_long_enough_gets_a_busy_model_drained():
    world = World({"a": 1, "b": 1}, max_models=1)
    world.have("a")
    first = world.ask("a")
    b = world.ask("b")
    world.wait(PATIENCE - 0.1)
    second = world.ask("a")
    assert second.granted  # not yet
    assert world.policy.wake_at(world.now) == b.since + PATIENCE
    world.wait(0.2)
    third = world.ask("a")
    assert not third.granted
    world.end(first)
    assert world.log == []
    world.end(second)
    assert world.log == ["-a"]
    world.unloaded("a")
    world.loaded("b")
    assert b.granted
    world.end(b)  # and now a, which waits
    assert world.log == ["-a", "+b", "-b"]
    world.unloaded("b")
    world.loaded("a")
    assert third.granted


def test_draining_ends_with_the_wait():
    world = World({"a": 1, "b": 1}, max_models=1)
    world.have("a")
    user = world.ask("a")
    b = world.ask("b")
    world.wait(PATIENCE)
    late = world.ask("a")
    assert not late.granted
    world.end(b)  # gave up
    assert late.granted
    world.end(user)
    assert world.log == []


def test_the_background_waits_for_idle_models_only():
    world = World({"a": 1, "b": 1}, max_models=1)
    world.have("a")
    user = world.ask("a")
    world.ask("b", background=True)
    world.wait(PATIENCE * 3)
    assert world.policy.wake_at(world.now) is None
    assert world.ask("a").granted
    assert world.log == []
    for ticket in [t for t in world.open if t.model == "a"]:
        world.end(ticket)
    assert world.log == ["-a"]
    assert user not in world.open


def test_the_foreground_overtakes_the_background():
    world = World(dict.fromkeys("abc", 1), max_models=1)
    world.have("a")
    user = world.ask("a")
    world.ask("b", background=True)
    world.now += 1
    world.ask("c")
    world.end(user)
    world.unloaded("a")
    assert world.log == ["-a", "+c"]


def test_a_failure_is_told_and_retried_with_back_off():
    world = World({"a": 1, "b": 1})
    tickets = [world.ask("a"), world.ask("a")]
    world.failed("a", "no such file")
    assert {t.refusal for t in tickets} == {"no such file"}
    assert world.ask("b").refusal is None
    backoffs = []
    for _ in range(9):
        refused = world.ask("a")
        assert refused.refusal == "no such file"
        backoffs.append(refused.retry_after)
        world.wait(refused.retry_after)
        assert world.ask("a").refusal is None
        world.failed("a", "no such file")
    assert backoffs == sorted(backoffs)
    assert backoffs[:3] == [1, 2, 4]
    assert backoffs[-1] == LONGEST_BACKOFF
    world.wait(LONGEST_BACKOFF)
    ticket = world.ask("a")
    world.loaded("a")
    assert ticket.granted


def test_a_death_voids_open_tickets_and_the_next_ones_wait_longer():
    world = World({"a": 1}, restarts=RestartSettings(max_restarts=3, window_seconds=60))
    ticket = world.ask("a")
    world.loaded("a")
    world.died("a")
    world.end(ticket)
    assert world.log == ["+a"], "nobody asks for it"
    for delay in (0, 0.5, 1):
        if delay:
            refused = world.ask("a")
            assert (refused.refusal, refused.retry_after) == ("killed", delay)
            world.wait(delay)
        assert not world.ask("a").refusal
        world.loaded("a")
        world.died("a")
    refused = world.ask("a")
    assert refused.refusal == "killed"
    assert refused.retry_after == pytest.approx(60 - 1.5)
    world.wait(refused.retry_after)
    ticket = world.ask("a")
    world.loaded("a")
    assert ticket.granted


def test_a_model_that_is_kept_is_loaded_unasked_and_stays():
    world = World({"a": 1, "b": 1}, max_models=1, keep="a")
    world.pump()
    assert world.log == ["+a"]
    world.loaded("a")
    world.ask("b")
    world.wait(10 * PATIENCE)
    assert world.log == ["+a"]


def test_a_model_that_is_kept_comes_back_and_its_tickets_wait():
    world = World({"a": 1}, keep="a")
    world.pump()
    world.loaded("a")
    world.died("a")
    assert world.log == ["+a", "+a"], "the first restart is at once"
    waiting = world.ask("a", background=True)
    world.loaded("a")
    assert waiting.granted
    world.died("a")
    assert waiting not in world.policy.models["a"].open
    waiting = world.ask("a", background=True)
    assert world.log == ["+a"] * 2
    assert world.policy.wake_at(world.now) == world.now + 0.5
    world.wait(0.5)
    assert world.log == ["+a"] * 3
    world.failed("a", "no memory")  # a restart that fails is a death
    assert not waiting.refusal
    world.wait(1)
    assert world.log == ["+a"] * 4
    world.loaded("a")
    assert waiting.granted


def test_a_model_that_is_kept_is_given_up():
    world = World({"a": 1}, keep="a", restarts=RestartSettings(max_restarts=2))
    world.pump()
    for given_up in (False, False, True):
        world.loaded("a")
        world.died("a")
        world.wait(1)
        assert world.policy.models["a"].given_up == given_up
    world.wait(1000)
    assert world.log == ["+a"] * 3
    assert world.ask("a", background=True).refusal == "killed"


def test_what_can_never_fit_is_refused_at_once():
    world = World({"a": 1 << 20, "huge": 100 << 20}, max_bytes=10 << 20)
    refusal = world.ask("huge").refusal
    assert "100 MiB" in refusal
    assert "10 MiB" in refusal
    assert world.log == []


def test_a_model_bigger_than_thought_makes_others_go():
    world = World({"a": 4, "b": 4}, max_bytes=10)
    world.have("a")
    ticket = world.ask("b")
    world.loaded("b", 25)
    assert ticket.granted
    assert world.log == ["+b", "-a"]
    world.unloaded("a")
    world.end(ticket)
    world.ask("a")
    assert world.log[-1] == "-b"
    world.unloaded("b")
    world.loaded("a")
    assert world.ask("b").refusal is None  # alone it may come back


NAMES = "abcde"


class ResidencyMachine(RuleBasedStateMachine):
    """Requests, loads, failures and time in any order; at the end everybody has been served or refused."""

    def __init__(self) -> None:
        super().__init__()
        rng = random.Random(0)
        self.world = World(
            {name: rng.randint(1, 4) for name in NAMES}, max_models=rng.randint(1, 3), max_bytes=6
        )
        self.world.carry_out = self.carry_out
        self.carry = World.carry_out

    def carry_out(self, step: Load | Unload) -> None:
        model = self.world.policy.models[step.model]
        assert step.model not in self.world.loading | self.world.unloading, "two at once"
        if isinstance(step, Unload):
            assert not model.open, "unloaded in use"
        self.carry(self.world, step)

    @rule(name=st.sampled_from(NAMES), background=st.booleans())
    def ask(self, name, background):
        self.world.ask(name, background)

    @precondition(lambda self: self.world.open)
    @rule(data=st.data())
    def end(self, data):
        self.world.end(data.draw(st.sampled_from(self.world.open)))

    @precondition(lambda self: self.world.loading)
    @rule(data=st.data(), fails=st.booleans())
    def finish_load(self, data, fails):
        name = data.draw(st.sampled_from(sorted(self.world.loading)))
        (self.world.failed if fails else self.world.loaded)(name)

    @precondition(lambda self: self.world.unloading)
    @rule(data=st.data())
    def finish_unload(self, data):
        self.world.unloaded(data.draw(st.sampled_from(sorted(self.world.unloading))))

    @rule(name=st.sampled_from(NAMES))
    def die(self, name):
        if self.world.policy.models[name].state == "loaded":
            self.world.died(name)

    @rule(seconds=st.sampled_from([0.1, 1.0, PATIENCE, LONGEST_BACKOFF]))
    def wait(self, seconds):
        self.world.wait(seconds)

    @invariant()
    def within_limits(self):
        policy = self.world.policy
        resident = [model for model in policy.models.values() if model.resident]
        assert len(resident) <= policy.max_models
        assert sum(model.cost for model in resident) <= policy.max_bytes

    @invariant()
    def tickets_are_somewhere(self):
        for ticket in self.world.open:
            model = self.world.policy.models[ticket.model]
            waits = ticket in model.waiting
            assert not (waits and (ticket.granted or ticket.refusal))
            assert waits or ticket.granted or ticket.refusal
        for model in self.world.policy.models.values():
            assert model.open <= set(self.world.open)
            assert not model.open or model.state == "loaded"
            if model.state == "loaded" and not model.draining:
                assert not model.waiting, "it is here, and somebody waits"

    def teardown(self):
        """Whoever waits gets in when the others leave, however long they were there."""
        world = self.world
        for _ in range(200):
            if not any(not (t.granted or t.refusal) for t in world.open):
                return
            for name in sorted(world.loading):
                world.loaded(name)
            for name in sorted(world.unloading):
                world.unloaded(name)
            for ticket in [t for t in world.open if t.granted or t.refusal]:
                world.end(ticket)
            world.wait(1.0)
        raise AssertionError("somebody waits for ever")


ResidencyMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestResidencyMachine = ResidencyMachine.TestCase


@pytest.mark.parametrize("max_models", [1, 2])
def test_nobody_starves_among_users_who_never_leave_a_gap(max_models, seed):
    """Each model has a user at all times; each user is served again and again."""
    rng = random.Random(seed)
    world = World(dict.fromkeys(NAMES, 1), max_models=max_models)
    served = dict.fromkeys(NAMES, 0)
    for _ in range(3000):
        for name in NAMES:
            mine = [t for t in world.open if t.model == name]
            if len(mine) < 2:
                world.ask(name)
            for ticket in mine:
                if ticket.granted and rng.random() < 0.5:
                    served[name] += 1
                    world.end(ticket)
        for name in sorted(world.loading):
            world.loaded(name)
        for name in sorted(world.unloading):
            world.unloaded(name)
        world.wait(0.2)
    assert min(served.values()) > 20, served
