"""The scheduler's invariants under random requests, without model or runner; and its rules one by one."""

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tenon.core.messages import AddRequest
from tenon.core.request import Request, State
from tenon.core.sampling import SamplingParams
from tenon.core.schedule import Budget, Schedule
from tenon.core.spec import KVGroup
from tenon.engine.pace import Pace
from tenon.engine.scheduler import CALM_STEPS, Scheduler
from tenon.errors import InvalidRequest
from tests.cache.caches import FULL, STATE, chunk, make_cache, window

BLOCK = 4


class Driver:
    """A scheduler whose model emits 0, with the invariants of a step checked at every step."""

    def __init__(
        self,
        *,
        num_blocks=10,
        tokens=12,
        seqs=4,
        length=32,
        policy="fcfs",
        prefix=True,
        groups=(),
        num_slots=0,
    ) -> None:
        cache = make_cache(
            num_blocks, BLOCK, *groups, max_step=tokens, num_slots=num_slots, prefix_caching=prefix
        )
        self.scheduler = Scheduler(
            cache,
            max_num_batched_tokens=tokens,
            max_num_seqs=seqs,
            max_model_len=length,
            policy=policy,
        )
        self.num_added = 0
        self.logs: dict[str, list[int]] = {}
        self.idle_steps = 0
        self.seconds = lambda step: None  # what a step takes

    def add(
        self, prompt: list[int], max_tokens: int = 8, priority: int = 0, background: bool = False
    ) -> Request:
        add = AddRequest(
            request_id=f"r{self.num_added}",
            prompt_token_ids=prompt,
            params=SamplingParams(max_tokens=max_tokens),
            priority=priority,
            background=background,
        )
        request = Request(add, self.num_added, self.scheduler.max_model_len)
        self.num_added += 1
        self.scheduler.add(request)
        self.logs[request.id] = list(prompt)
        return request

    def break_down(self) -> None:
        """An error in the midst of scheduling, after some of the step has been decided."""
        scheduler = self.scheduler
        step = scheduler.schedule()
        for request in step.requests[:1]:
            request.blocks = [blocks[1:] for blocks in request.blocks]  # half done, whatever it was
        if scheduler.at is None:
            return
        if (culprit := scheduler.rebuild()) is not None:
            scheduler.finish(culprit)

    def step(self, fail=None, memory=False) -> Schedule:
        scheduler = self.scheduler
        first = scheduler.running[0] if len(scheduler.running) else None
        step = scheduler.schedule()
        self._check(step, first)
        if fail is not None and fail(step):
            if memory and scheduler.squeeze(step):
                return step
            if (culprit := scheduler.blame(step)) is not None:
                scheduler.finish(culprit)
            return step
        scheduler.advance(step, self.seconds(step))
        for request in step.requests:
            if request.num_computed == len(request.tokens):
                scheduler.emit(request, 0)
                self.logs[request.id].append(0)
                if len(request.tokens) >= request.max_total:
                    scheduler.finish(request)
        return step

    def run(self, limit: int = 2000) -> int:
        steps = 0
        while len(self.scheduler):
            self.step()
            self.scheduler.check_integrity()
            steps += 1
            assert steps < limit, "not done"
        cache = self.scheduler.cache
        assert cache.pool.num_used == 0
        assert cache.states is None or cache.states.pool.num_used == 0
        return steps

    def _check(self, step: Schedule, first: Request | None) -> None:
        scheduler = self.scheduler
        assert step.total_tokens == sum(step.num_tokens) <= scheduler.max_num_batched_tokens
        assert all(count > 0 for count in step.num_tokens)
        assert len(set(map(id, step.requests))) == len(step.requests) <= scheduler.max_num_seqs
        for request, count in zip(step.requests, step.num_tokens, strict=True):
            assert request.state is State.RUNNING
            assert request not in step.preempted
            assert request.num_computed + count <= len(request.tokens)
            for blocks in request.blocks:
                assert request.num_computed + count <= len(blocks) * BLOCK
        for request in scheduler:
            assert request.tokens == self.logs[request.id], "the log of emitted tokens changed"
        if len(scheduler):
            assert step.requests, "work exists, and nothing is scheduled"
            if scheduler._num_suspects == 0:
                assert set(map(id, scheduler.running)) == set(map(id, step.requests)), "someone got no token"
        if first is not None and scheduler._num_suspects == 0:
            assert first not in step.preempted, "the first in rank was preempted"


def random_add(driver: Driver, rng) -> None:
    prompt = [rng.randint(0, 1) for _ in range(rng.randint(1, 20))]
    driver.add(prompt, rng.randint(1, 32 - len(prompt)), rng.randint(-1, 1), rng.random() < 0.3)


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("paced", [True, False])
def test_long_random_walk(policy, prefix, paced, seed):
    walk(random.Random(seed), policy, prefix, paced, 2000)


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize(
    "groups", [(FULL, window(6), window(9)), (window(5), chunk(8)), (FULL, STATE), (window(6), FULL, STATE)]
)
def test_long_random_walk_with_groups(groups, prefix, seed):
    walk(random.Random(seed), "fcfs", prefix, False, 1000, groups)


def walk(
    rng: random.Random, policy: str, prefix: bool, paced: bool, steps: int, groups: tuple[KVGroup, ...] = ()
) -> None:
    driver = Driver(
        policy=policy,
        prefix=prefix,
        num_blocks=rng.randint(8, 20) * max(1, len(groups)),
        tokens=rng.randint(4, 30),
        groups=groups,
        num_slots=rng.randint(1, 10),
    )
    if paced:
        driver.scheduler.pace = Pace(least=1)
        driver.seconds = lambda step: rng.expovariate(10)
    for number in range(steps):
        roll = rng.random()
        if roll < 0.15 and len(driver.scheduler) < 12:
            random_add(driver, rng)
        elif roll < 0.18 and len(driver.scheduler):
            driver.scheduler.finish(rng.choice(list(driver.scheduler)))
        elif roll < 0.21:
            bad = rng.randrange(4)
            driver.step(fail=lambda step, bad=bad: any(int(r.id[1:]) % 4 == bad for r in step.requests))
        elif roll < 0.23:
            most = rng.choice([1, 3, 8])
            driver.step(fail=lambda step, most=most: step.total_tokens > most, memory=True)
        elif roll < 0.235:
            driver.break_down()
        else:
            driver.step()
        if number % 5 == 0:
            driver.scheduler.check_integrity()
    driver.run()


class SchedulerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver(num_blocks=8)

    @rule(
        length=st.integers(1, 20),
        extra=st.integers(1, 12),
        token=st.integers(0, 1),
        priority=st.integers(0, 1),
    )
    def add(self, length, extra, token, priority):
        self.driver.add([token] * length, extra, priority)

    @precondition(lambda self: len(self.driver.scheduler))
    @rule(data=st.data())
    def abort(self, data):
        self.driver.scheduler.finish(
            data.draw(st.sampled_from(sorted(self.driver.scheduler, key=lambda r: r.seq)))
        )

    @rule()
    def step(self):
        self.driver.step()

    @rule()
    def failing_step(self):
        self.driver.step(fail=lambda step: len(step.requests) > 1)

    @rule(most=st.integers(1, 12))
    def step_out_of_memory(self, most):
        self.driver.step(fail=lambda step: step.total_tokens > most, memory=True)

    @rule()
    def break_down(self):
        self.driver.break_down()

    @rule()
    def reset(self):
        self.driver.scheduler.cache.reset()

    @invariant()
    def check(self):
        self.driver.scheduler.check_integrity()

    def teardown(self):
        self.driver.run()


class PriorityMachine(SchedulerMachine):
    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver(num_blocks=8, policy="priority")


for machine in (SchedulerMachine, PriorityMachine):
    machine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestScheduler = SchedulerMachine.TestCase
TestPriorityScheduler = PriorityMachine.TestCase


def test_order_of_service_is_first_come_first_served():
    driver = Driver(seqs=2, num_blocks=100)
    requests = [driver.add([1, i], max_tokens=3) for i in range(6)]
    order = []
    while len(driver.scheduler):
        order += [r for r in driver.step().requests if r not in order]
    assert order == requests


def test_order_of_service_by_priority():
    driver = Driver(seqs=1, num_blocks=100, policy="priority")
    low, high, middle = (driver.add([1], 2, priority) for priority in (5, -5, 0))
    order = []
    while len(driver.scheduler):
        order += [r for r in driver.step().requests if r not in order]
    assert order == [high, middle, low]


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
def test_background_requests_come_behind_all_others(policy):
    driver = Driver(policy=policy, seqs=1)
    batch = [driver.add([1], priority=-5, background=True) for _ in range(2)]
    asked = [driver.add([1], priority=5) for _ in range(2)]
    order = []
    while len(driver.scheduler):
        order += [r for r in driver.step().requests if r not in order]
    assert order == [*asked, *batch]


def test_the_last_in_rank_makes_room_and_comes_back():
    driver = Driver(num_blocks=6, prefix=False, length=24)
    first, second = driver.add([1] * 8, max_tokens=16), driver.add([2] * 4, max_tokens=16)
    preempted = set()
    while len(driver.scheduler):
        preempted |= {r.id for r in driver.step().preempted}
    assert preempted == {second.id}
    assert len(first.tokens) == 24
    assert len(second.tokens) == 20


def test_a_long_recomputation_leaves_a_token_for_everyone():
    """A request of high rank that starts over must not take the whole step from those that decode."""
    driver = Driver(tokens=8, seqs=4, num_blocks=100, policy="priority")
    small = [driver.add([i], 16, priority=1) for i in range(3)]
    driver.step()
    big = driver.add([9] * 20, 4, priority=0)
    driver.step()
    step = driver.step()
    counts = dict(zip([r.id for r in step.requests], step.num_tokens, strict=True))
    assert counts[big.id] == 5
    assert all(counts[r.id] == 1 for r in small)


def test_a_step_that_fails_is_taken_apart_and_only_the_culprit_goes():
    driver = Driver(num_blocks=100, tokens=30)
    requests = [driver.add([i, i + 1, 7], max_tokens=6) for i in range(4)]
    culprit, ended = requests[2], []
    finish = driver.scheduler.finish
    driver.scheduler.finish = lambda r: (ended.append((r.id, len(r.tokens))), finish(r))
    while len(driver.scheduler):
        driver.step(fail=lambda step: culprit in step.requests and len(culprit.tokens) == 5)
        driver.scheduler.check_integrity()
    assert dict(ended) == {r.id: 5 if r is culprit else 9 for r in requests}


def test_blocks_of_a_failed_step_are_not_reused():
    driver = Driver(num_blocks=20, tokens=30)
    prompt = [1] * 13
    one, two = driver.add(prompt), driver.add(prompt)
    driver.step(fail=lambda step: True)
    assert one.suspect
    assert two.suspect
    assert len(driver.scheduler.cache.prefix) == 0
    step = driver.step()
    assert step.requests == [one]
    assert step.num_tokens == [13], "nothing of the failed step counts as computed"


def test_steps_are_halved_while_memory_runs_out_and_grow_again():
    driver = Driver(num_blocks=200, tokens=64, length=400)
    scheduler = driver.scheduler
    one, two = driver.add([1] * 300, 90), driver.add([2] * 60, 90)
    assert driver.step(fail=lambda step: True, memory=True).num_tokens == [64]
    assert scheduler.num_preemptions == 1, "the one of the step"
    assert driver.step(fail=lambda step: True, memory=True).num_tokens == [32], "one alone is halved again"
    sizes = []
    while len(sizes) < 2 * CALM_STEPS + 1:
        sizes.append(driver.step().total_tokens)
    assert sizes[:CALM_STEPS] == [16] * CALM_STEPS
    assert sizes[CALM_STEPS] == 32
    assert (one.state, two.state) == (State.RUNNING, State.RUNNING)


def test_several_in_a_step_without_memory_are_halved_once():
    driver = Driver(num_blocks=200, tokens=64, length=400)
    scheduler = driver.scheduler
    for number in range(4):
        driver.add([number] * 40, 90)
    step = scheduler.schedule()
    assert step.num_tokens == [40, 24]
    assert scheduler.squeeze(step)
    step = scheduler.schedule()
    assert step.num_tokens == [32]
    scheduler.advance(step)  # in between, one that ran
    step = scheduler.schedule()
    assert step.num_tokens == [8, 24]
    assert scheduler.squeeze(step), "not again, but later"
    step = scheduler.schedule()
    assert step.total_tokens == 16
    assert not scheduler.squeeze(step), "as small as it gets"
    driver = Driver(num_blocks=200, tokens=128, length=400)
    for number in range(4):
        driver.add([number] * 30, 90)
    assert driver.scheduler.squeeze(driver.scheduler.schedule())
    step = driver.scheduler.schedule()
    assert step.num_tokens == [30, 30]
    assert not driver.scheduler.squeeze(step), "at once again: somebody is to blame"


def whole(tokens: int) -> Driver:
    driver = Driver(num_blocks=100, tokens=tokens)
    driver.scheduler = Scheduler(
        make_cache(100, BLOCK), max_num_batched_tokens=tokens, max_num_seqs=4, max_model_len=32,
        whole_sequences=True,
    )  # fmt: skip
    return driver


def test_sequences_that_are_not_cut_fill_a_step_to_its_end():
    driver = whole(32)
    assert not driver.scheduler.schedule(), "nothing to do"
    for number, length in enumerate((20, 12, 1)):
        driver.add([number] * length, 1)
    assert driver.scheduler.schedule().num_tokens == [20, 12]
    driver = whole(64)
    for number in range(3):
        driver.add([number] * 31, 1)
    step = driver.scheduler.schedule()
    assert step.num_tokens == [31, 31]
    assert driver.scheduler.squeeze(step)
    step = driver.scheduler.schedule()
    assert step.num_tokens == [31]
    assert not driver.scheduler.squeeze(step), "it cannot be halved"


def test_who_was_being_dealt_with_when_scheduling_failed_is_to_blame_the_second_time():
    driver = Driver()
    scheduler = driver.scheduler
    one, two = driver.add([1, 2]), driver.add([3, 4])
    scheduler.at = None
    assert scheduler.rebuild() is None
    assert not any(request.suspect for request in scheduler)
    scheduler.at = two
    assert scheduler.rebuild() is None
    assert (one.suspect, two.suspect) == (False, True)
    scheduler.at = two
    assert scheduler.rebuild() is two
    assert scheduler.rebuild(gone=two) is None
    assert (list(scheduler), two.state) == ([one], State.FINISHED)
    assert scheduler.rebuild(gone=two) is None, "gone already"
    scheduler.finish(one)
    assert one.state is State.FINISHED
    scheduler.check_integrity()


@pytest.mark.parametrize(
    ("length", "max_tokens", "what", "param", "code"),
    [
        (0, 4, "the prompt is empty", "prompt", None),
        (32, 4, "the prompt has 32 tokens", "prompt", "context_length_exceeded"),
        (8, 20, "need 28 tokens of KV cache; it holds 24", "max_tokens", "context_exceeds_kv_capacity"),
    ],
    ids=["empty", "long", "large"],
)
def test_what_can_never_run_is_refused(length, max_tokens, what, param, code):
    driver = Driver(num_blocks=6)
    with pytest.raises(InvalidRequest, match=what) as caught:
        driver.add([1] * length, max_tokens)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert len(driver.scheduler) == 0


def test_what_just_fits_runs():
    driver = Driver(num_blocks=8, tokens=32)
    assert driver.scheduler.num_preemptions == 0
    request = driver.add([1] * 31, 1)
    driver.step()
    assert (len(request.tokens), request.state) == (32, State.FINISHED)


def test_ids_are_unique():
    driver = Driver()
    driver.add([1])
    driver.num_added = 0
    with pytest.raises(InvalidRequest, match="in flight") as caught:
        driver.add([1])
    assert caught.value.param == "request_id"


def test_budget_gives_all_or_nothing():
    budget = Budget(5)
    assert budget.take(4)
    assert not budget.take(2)
    assert budget.left == 1
    budget.undo(4)
    assert budget.take(5)
    budget.undo(5)
    with pytest.raises(AssertionError):
        budget.undo(1)
