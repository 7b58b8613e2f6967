"""Caches of random groups of layers under random requests, against a plain model of what every slot holds."""

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tenon.cache.groups import KVCache
from tenon.core.messages import AddRequest
from tenon.core.request import Request
from tenon.core.sampling import SamplingParams
from tenon.core.spec import KVGroup

from .caches import FULL, STATE, chunk, held, make_cache, window

SIZE = 4
Content = tuple  # of a slot: the group, a salt, then all tokens up to its own


class CacheModel:
    """A cache, requests that hold blocks, and what each slot, of blocks or states, was last filled with."""

    def __init__(self, cache: KVCache, max_step: int) -> None:
        self.cache = cache
        self.max_step = max_step
        self.requests: list[Request] = []
        self.content: dict[tuple[int, int], Content] = {}  # of (block, offset)
        self.states: dict[int, Content] = {}
        self.num_added = 0
        self.num_hits = 0

    def add(self, tokens: list[int], salt: str, reserve: int, step: int) -> None:
        """A request comes, finds what is cached, gets blocks if there are any, computes its first tokens."""
        add = AddRequest(
            request_id=str(self.num_added), prompt_token_ids=tokens, params=SamplingParams(), cache_salt=salt
        )
        request = Request(add, self.num_added, 10_000)
        self.num_added += 1
        if len(tokens) > self.cache.capacity:
            return
        found = self.cache.match(request)
        assert len(found) == self._longest(request)
        free = self.cache.pool.num_free
        fits = self._needs(request, found) + reserve * len(self.cache.groups) <= free
        fits = fits and (self.cache.states is None or self.cache.states.pool.num_free > 0)
        assert self.cache.admit(request, found, reserve) == fits
        if not request.blocks:
            assert self.cache.pool.num_free == free
            assert request.state_out == -1
            return
        self.num_hits += len(found)
        self.requests.append(request)
        self._run([(request, self._tokens(request, step))])

    def step(self, indices: list[int], step: int, fails: bool = False) -> None:
        """Some requests compute their next tokens together, or fail to: then they go."""
        work = []
        for index in sorted(set(indices)):
            request = self.requests[index]
            if request.num_computed == len(request.tokens):
                request.tokens.append(index % 2)
            before = [list(blocks) for blocks in request.blocks]
            count = self._tokens(request, step)
            if request.num_computed + count <= request.room or self.cache.grow(
                request, request.num_computed + count
            ):
                work.append((request, count))
            else:
                assert sum(map(len, before)) >= len(held(request)), "got blocks all the same"
        if not fails:
            self._run(work)
            return
        for request, count in work:
            fresh = self.cache.commit(request, request.num_computed + count)
            self.cache.forget(fresh)
        for request, _ in work:
            self.release(self.requests.index(request))

    def release(self, index: int) -> None:
        self.cache.release(self.requests.pop(index))

    def _tokens(self, request: Request, step: int) -> int:
        count = min(step, self.max_step, len(request.tokens) - request.num_computed)
        return self.cache.cut(request, count) if count > 1 else count

    def _run(self, work: list[tuple[Request, int]]) -> None:
        """A step: all K and V are written, then read; states are read, then written."""
        for request, count in work:
            self.cache.commit(request, request.num_computed + count)
        for request, count in work:
            for position in range(request.num_computed, request.num_computed + count):
                for group, blocks in enumerate(request.blocks):
                    slot = (blocks[position // SIZE], position % SIZE)
                    self.content[slot] = self._key(group, request, position)
        for request, count in work:
            self._read(request, count)
        for request, count in work:
            if self.cache.states is not None:
                end = request.num_computed + count
                self.states[request.state_out] = (request.cache_salt, *request.tokens[:end])
            request.num_computed += count
        self.cache.settle([request for request, _ in work])

    def _read(self, request: Request, count: int) -> None:
        """Whatever the tokens of a step see is there."""
        start = request.num_computed
        for index, (group, blocks) in enumerate(zip(self.cache.groups, request.blocks, strict=True)):
            for position in range(start, start + count):
                for seen in range(group.first_seen(position), position + 1):
                    slot = (blocks[seen // SIZE], seen % SIZE)
                    assert self.content.get(slot) == self._key(index, request, seen), "stale or foreign"
        if self.cache.states is not None:
            assert (request.state_in < 0) == (start == 0)
            if start:
                expected = (request.cache_salt, *request.tokens[:start])
                assert self.states[request.state_in] == expected, "stale or foreign state"

    def _key(self, group: int, request: Request, position: int) -> Content:
        return (group, request.cache_salt, *request.tokens[: position + 1])

    def _needs(self, request: Request, found: list) -> int:
        """Blocks that are taken from the free ones when this request is admitted."""
        demand, needed = self.cache.demand, 0
        for index, group in enumerate(self.cache.groups):
            first = group.first_seen(len(found) * SIZE) // SIZE
            most = demand.peaks[index]
            needed += min(demand.blocks_for(len(request.tokens)), first + most) - len(found)
            needed += sum(self.cache.pool.is_idle(entry.blocks[index]) for entry in found[first:])
        return needed

    def _longest(self, request: Request) -> int:
        """Blocks of the longest cached prefix of all tokens but the last, by content alone."""
        prefix = self.cache.prefix
        if prefix is None:
            return 0
        entries = list(prefix._by_digest.values())
        known = {self.content[block, SIZE - 1] for entry in entries for block in entry.blocks if block >= 0}
        states = {self.states[entry.state] for entry in entries if entry.state >= 0}
        for count in range((len(request.tokens) - 1) // SIZE, 0, -1):
            blocks = all(
                self._key(index, request, block * SIZE + SIZE - 1) in known
                for index, group in enumerate(self.cache.groups)
                for block in range(group.first_seen(count * SIZE) // SIZE, count)
            )
            state = (request.cache_salt, *request.tokens[: count * SIZE]) in states
            if blocks and (state or self.cache.states is None):
                return count
        return 0

    def check(self) -> None:
        self.cache.check_integrity(self.requests)
        assert self.cache.pool.num_used == len({block for r in self.requests for block in held(r)})


GROUPS: list[tuple[KVGroup, ...]] = [
    (FULL,),
    (FULL, window(6)),
    (FULL, window(5), window(5), chunk(8)),
    (window(9),),
    (chunk(10), window(1)),
    (FULL, STATE),
    (window(7), FULL, STATE),
]


class CacheMachine(RuleBasedStateMachine):
    @initialize(
        groups=st.sampled_from(GROUPS),
        max_step=st.sampled_from([3, 8, 30]),
        blocks=st.integers(4, 20),
        slots=st.integers(1, 5),
    )
    def begin(self, groups, max_step, blocks, slots):
        cache = make_cache(blocks, SIZE, *groups, max_step=max_step, num_slots=slots)
        self.model = CacheModel(cache, max_step)

    @rule(
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=30),
        salt=st.sampled_from(["", "x"]),
        reserve=st.integers(0, 2),
        step=st.integers(1, 30),
    )
    def add(self, tokens, salt, reserve, step):
        self.model.add(tokens, salt, reserve, step)

    @precondition(lambda self: self.model.requests)
    @rule(data=st.data(), step=st.integers(1, 30), fails=st.sampled_from([False, False, False, True]))
    def step(self, data, step, fails):
        index = st.integers(0, len(self.model.requests) - 1)
        self.model.step(data.draw(st.lists(index, min_size=1, max_size=3)), step, fails)

    @precondition(lambda self: self.model.requests)
    @rule(data=st.data())
    def release(self, data):
        self.model.release(data.draw(st.integers(0, len(self.model.requests) - 1)))

    @rule()
    def reset(self):
        self.model.cache.reset()

    @invariant()
    def check(self):
        if hasattr(self, "model"):
            self.model.check()


CacheMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestCache = CacheMachine.TestCase


def walk(rng: random.Random, steps: int, check_every: int = 10) -> int:
    """The same, driven by a seed. Returns how many blocks were found."""
    max_step = rng.choice([3, 8, 30])
    cache = make_cache(
        rng.randint(4, 40),
        SIZE,
        *rng.choice(GROUPS),
        max_step=max_step,
        num_slots=rng.randint(1, 9),
        prefix_caching=rng.random() < 0.9,
    )
    model = CacheModel(cache, max_step)
    for number in range(steps):
        roll = rng.random()
        count = len(model.requests)
        if roll < 0.35 or not count:
            tokens = [rng.randint(0, 1) for _ in range(rng.randint(1, 40))]
            model.add(tokens, rng.choice(["", "", "x"]), rng.randint(0, 2), rng.randint(1, 30))
        elif roll < 0.75:
            some = [rng.randrange(count) for _ in range(rng.randint(1, 3))]
            model.step(some, rng.randint(1, 30), fails=rng.random() < 0.1)
        elif roll < 0.99:
            model.release(rng.randrange(count))
        else:
            cache.reset()
        if number % check_every == 0:
            model.check()
    return model.num_hits


def test_long_random_walks(seed):
    rng = random.Random(seed)
    assert sum(walk(rng, 1500) for _ in range(8)) > 0
