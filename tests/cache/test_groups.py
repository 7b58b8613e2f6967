"""Caches of random groups of layers under random requests, against a plain model of what every slot holds."""

import random

import pytest
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
New = tuple[list[int], str, int]  # a request that comes: prompt, salt, and the reserve at its admission


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

    def step(self, indices: list[int], news: list[New], size: int, fails: bool = False) -> None:
        """Some requests, and then new ones, compute their next tokens together; or fail to: then they go."""
        self.fresh: list[int] = []
        some = [self.requests[index] for index in sorted(set(indices))]
        work = [(request, self._more(request, size)) for request in some]
        for new in news:
            request = self._admit(*new)
            if request is not None:
                work.append((request, self._take(request, self._tokens(request, size))))
        self._run([(request, count) for request, count in work if count], fails)

    def _more(self, request: Request, size: int) -> int:
        """So many tokens of a request that runs are computed; none if there is no room."""
        if request.num_computed == len(request.tokens):
            request.tokens.append(len(request.tokens) % 2)
        count, before = self._tokens(request, size), set(held(request))
        needed = request.num_computed + count
        if needed <= request.room or self.cache.grow(request, needed):
            return self._take(request, count)
        assert self.cache.states is not None or set(held(request)) <= before, "got blocks all the same"
        return 0

    def _admit(self, tokens: list[int], salt: str, reserve: int) -> Request | None:
        """A request comes, finds what is cached, and gets blocks if there are any."""
        add = AddRequest(
            request_id=str(self.num_added), prompt_token_ids=tokens, params=SamplingParams(), cache_salt=salt
        )
        request = Request(add, self.num_added, 10_000)
        self.num_added += 1
        if len(tokens) > self.cache.capacity:
            return None
        found = self.cache.match(request)
        assert len(found) == self._longest(request)
        free, states = self.cache.pool.num_free, self.cache.states
        fits = self._needs(request, found) + reserve * len(self.cache.groups) <= free
        fits = fits and (states is None or states.pool.num_free > 0)
        assert self.cache.admit(request, found, reserve) == fits
        if not fits:
            assert self.cache.pool.num_free == free
            assert not request.blocks
            assert request.state_out == -1
            return None
        self.num_hits += len(found)
        self.requests.append(request)
        return request

    def release(self, index: int) -> None:
        self.cache.release(self.requests.pop(index))

    def _tokens(self, request: Request, size: int) -> int:
        count = min(size, self.max_step, len(request.tokens) - request.num_computed)
        return self.cache.cut(request, count) if count > 1 else count

    def _run(self, work: list[tuple[Request, int]], fails: bool) -> None:
        """All K and V have been written: they are read; states are read, then written."""
        for request, count in work:
            self._read(request, count)
        if fails:
            self.cache.forget(self.fresh)
            for request, _ in work:
                self.release(self.requests.index(request))
            return
        for request, count in work:
            request.num_computed += count
            if self.cache.states is not None:
                known = request.tokens[: request.num_computed]
                self.states[request.state_out] = (request.cache_salt, *known)
        self.cache.settle([request for request, _ in work])

    def _take(self, request: Request, count: int) -> int:
        """K and V of so many tokens go into their slots; whoever comes next may find them."""
        end = request.num_computed + count
        for position in range(request.num_computed, end):
            for group, blocks in enumerate(request.blocks):
                slot = (blocks[position // SIZE], position % SIZE)
                self.content[slot] = self._key(group, request, position)
        self.fresh += self.cache.commit(request, end)
        return count

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
        blocks=st.integers(4, 30),
        slots=st.integers(1, 5),
    )
    def begin(self, groups, max_step, blocks, slots):
        cache = make_cache(blocks, SIZE, *groups, max_step=max_step, num_slots=slots)
        self.model = CacheModel(cache, max_step)

    prompts = st.builds(
        lambda bit, length, tail: [bit] * length + tail,
        st.integers(0, 1),
        st.integers(1, 20),
        st.lists(st.integers(0, 1), max_size=6),
    )
    news = st.lists(st.tuples(prompts, st.sampled_from(["", "x"]), st.integers(0, 2)), max_size=2)

    @rule(data=st.data(), news=news, size=st.integers(1, 30), fails=st.sampled_from([*[False] * 4, True]))
    def step(self, data, news, size, fails):
        count = len(self.model.requests)
        indices = st.lists(st.integers(0, count - 1), max_size=4) if count else st.just([])
        self.model.step(data.draw(indices), news, size, fails)

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


def walk(rng: random.Random, steps: int, check_every: int = 10, groups: tuple[KVGroup, ...] = ()) -> int:
    """The same, driven by a seed. Returns how many blocks were found."""
    max_step = rng.choice([3, 8, 30])
    cache = make_cache(
        rng.randint(8, 60),
        SIZE,
        *(groups or rng.choice(GROUPS)),
        max_step=max_step,
        num_slots=rng.randint(1, 9),
        prefix_caching=rng.random() < 0.9,
    )
    model = CacheModel(cache, max_step)
    for number in range(steps):
        roll, count = rng.random(), len(model.requests)
        if roll < 0.8 or not count:
            some = [rng.randrange(count) for _ in range(rng.randint(0, 4))] if count else []
            news = [_new(rng) for _ in range(rng.choice([0, 0, 1, 1, 2]))]
            model.step(some, news, rng.randint(1, 30), fails=rng.random() < 0.1)
        elif roll < 0.99:
            model.release(rng.randrange(count))
        else:
            cache.reset()
        if number % check_every == 0:
            model.check()
    return model.num_hits


def _new(rng: random.Random) -> New:
    """A prompt that begins like others."""
    tail = [rng.randint(0, 1) for _ in range(rng.randint(0, 8))]
    return [rng.randint(0, 1)] * rng.randint(1, 24) + tail, rng.choice(["", "", "x"]), rng.randint(0, 2)


@pytest.mark.parametrize("groups", GROUPS)
def test_long_random_walks(groups, seed):
    rng = random.Random(seed)
    assert sum(walk(rng, 400, groups=groups) for _ in range(4)) > 0


def compute(cache: KVCache, tokens: list[int], size: int = 8) -> Request:
    """A request whose prompt is computed in steps."""
    add = AddRequest(request_id="r", prompt_token_ids=tokens, params=SamplingParams())
    request = Request(add, 0, 10_000)
    assert cache.admit(request, cache.match(request), 0)
    while request.num_computed < len(tokens):
        end = min(request.num_computed + size, len(tokens))
        assert end <= request.room or cache.grow(request, end)
        cache.commit(request, end)
        request.num_computed = end
    return request


def test_a_long_prompt_holds_no_more_of_a_window_than_it_needs():
    cache = make_cache(150, SIZE, FULL, window(10), chunk(16), max_step=8)
    request = compute(cache, list(range(400)))
    assert len(held(request)) <= 100 + 2 * 8
    assert [len(blocks) for blocks in request.blocks] == [100, 100, 100]
    assert cache.capacity >= 400
    cache.check_integrity([request])


def test_a_prefix_is_found_by_what_its_windows_still_have():
    """Blocks behind the window may be gone; with one within it, the prefix ends before that."""
    cache, tokens = make_cache(40, SIZE, FULL, window(10), max_step=8), list(range(41))
    request = compute(cache, tokens)
    blocks = [list(of_group) for of_group in request.blocks]
    cache.release(request)
    assert len(cache.match(_again(tokens))) == 10
    behind = next(entry.blocks[1] for entry in cache.match(_again(tokens)) if entry.blocks[1] >= 0)
    cache.forget([behind])
    assert len(cache.match(_again(tokens))) == 10
    cache.forget([blocks[1][8]])
    found = len(cache.match(_again(tokens)))
    assert found < 9
    again = compute(cache, tokens)
    assert again.num_cached == found * SIZE
    assert len(cache.match(_again(tokens))) == 10, "the lost block is known again"
    cache.check_integrity([again])


def _again(tokens: list[int]) -> Request:
    add = AddRequest(request_id="a", prompt_token_ids=tokens, params=SamplingParams())
    return Request(add, 0, 10_000)


def test_any_free_block_serves_any_group(seed):
    """Groups hold what they need of one pool, to its last block: there is no fragmentation."""
    rng = random.Random(seed)
    cache = make_cache(60, SIZE, FULL, window(6), window(6), max_step=8, prefix_caching=False)
    requests = []
    for _ in range(300):
        if requests and rng.random() < 0.4:
            cache.release(requests.pop(rng.randrange(len(requests))))
        free, tokens = cache.pool.num_free, [0] * rng.randint(1, 60)
        request = _again(tokens)
        needed = cache.demand.blocks(len(tokens))
        assert cache.admit(request, [], 0) == (needed <= free)
        if request.blocks:
            assert cache.pool.num_free == free - needed
            requests.append(request)
        cache.check_integrity(requests)
