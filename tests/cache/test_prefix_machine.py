"""The prefix cache and its group under random requests, against a plain model of what every block holds."""

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tenon.core.messages import AddRequest
from tenon.core.request import Request
from tenon.core.sampling import SamplingParams

from .caches import make_cache

SIZE = 4
Content = tuple  # a salt, then all tokens up to the end of the block


class CacheModel:
    """A group, requests that hold blocks, and the content that each block was last filled with."""

    def __init__(self, num_blocks: int) -> None:
        self.group = make_cache(num_blocks, SIZE)
        self.requests: list[Request] = []
        self.content: dict[int, Content] = {}
        self.num_added = 0
        self.num_hits = 0

    def add(self, tokens: list[int], salt: str, reserve: int) -> None:
        """A request comes, finds what is cached, gets blocks if there are any, and computes its prompt."""
        add = AddRequest(
            request_id=str(self.num_added), prompt_token_ids=tokens, params=SamplingParams(), cache_salt=salt
        )
        request = Request(add, self.num_added, 10_000)
        self.num_added += 1
        found = self.group.match(request)
        assert [entry.blocks[0] for entry in found] == self._longest(request)
        free = self.group.pool.num_free
        idle = sum(self.group.pool.is_idle(entry.blocks[0]) for entry in found)
        fits = self.group.demand.blocks_for(len(tokens)) - len(found) + idle + reserve <= free
        assert self.group.admit(request, found, reserve) == fits
        if not fits:
            assert self.group.pool.num_free == free
            assert not request.blocks
            return
        self.num_hits += len(found)
        self.requests.append(request)
        self._compute(request)

    def extend(self, index: int, tokens: list[int]) -> None:
        """A request gets more tokens, if there is room."""
        request = self.requests[index]
        before = list(request.blocks[0])
        request.tokens += tokens
        if not self.group.grow(request, len(request.tokens)):
            assert request.blocks == [before]
            del request.tokens[-len(tokens) :]
            return
        self._compute(request)

    def fail(self, index: int, tokens: list[int]) -> None:
        """As `extend`, but the step that was to fill the blocks fails, and the request goes."""
        request = self.requests[index]
        request.tokens += tokens
        if not self.group.grow(request, len(request.tokens)):
            del request.tokens[-len(tokens) :]
            return
        fresh = self.group.commit(request, len(request.tokens))
        self.group.forget(fresh)
        for block in fresh:
            self.content.pop(block, None)
        self.release(index)

    def release(self, index: int) -> None:
        self.group.release(self.requests.pop(index))

    def _compute(self, request: Request) -> None:
        start = request.num_computed
        self.group.commit(request, len(request.tokens))
        request.num_computed = len(request.tokens)
        for i in range(start // SIZE, len(request.tokens) // SIZE):
            self.content[request.blocks[0][i]] = self._key(request, i)

    def _key(self, request: Request, index: int) -> Content:
        return (request.cache_salt, *request.tokens[: (index + 1) * SIZE])

    def _longest(self, request: Request) -> list[int]:
        """The blocks of the longest cached prefix, of all tokens but the last, by content alone."""
        prefix = self.group.prefix
        assert prefix is not None
        known = {self.content[entry.blocks[0]]: entry.blocks[0] for entry in prefix._by_digest.values()}
        blocks = []
        for index in range((len(request.tokens) - 1) // SIZE):
            block = known.get(self._key(request, index))
            if block is None:
                break
            blocks.append(block)
        return blocks

    def check(self) -> None:
        self.group.check_integrity(self.requests)
        for request in self.requests:
            for i in range(len(request.tokens) // SIZE):
                assert self.content[request.blocks[0][i]] == self._key(request, i), "foreign content"
        if not self.requests:
            assert self.group.pool.num_used == 0


class CacheMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.model = CacheModel(9)

    few_tokens = st.lists(st.integers(0, 1), min_size=1, max_size=9)

    @rule(
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=22),
        salt=st.sampled_from(["", "x"]),
        reserve=st.integers(0, 2),
    )
    def add(self, tokens, salt, reserve):
        self.model.add(tokens, salt, reserve)

    @precondition(lambda self: self.model.requests)
    @rule(data=st.data(), tokens=few_tokens)
    def extend(self, data, tokens):
        self.model.extend(data.draw(st.integers(0, len(self.model.requests) - 1)), tokens)

    @precondition(lambda self: self.model.requests)
    @rule(data=st.data(), tokens=few_tokens)
    def fail(self, data, tokens):
        self.model.fail(data.draw(st.integers(0, len(self.model.requests) - 1)), tokens)

    @precondition(lambda self: self.model.requests)
    @rule(data=st.data())
    def release(self, data):
        self.model.release(data.draw(st.integers(0, len(self.model.requests) - 1)))

    @rule()
    def reset(self):
        self.model.group.reset()

    @invariant()
    def check(self):
        self.model.check()


CacheMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCache = CacheMachine.TestCase


def walk(rng: random.Random, steps: int, check_every: int = 10) -> int:
    """The same, driven by a seed. Returns how many blocks were found."""
    model = CacheModel(rng.randint(4, 40))
    for step in range(steps):
        roll = rng.random()
        count = len(model.requests)
        if roll < 0.4 or not count:
            tokens = [rng.randint(0, 1) for _ in range(rng.randint(1, 30))]
            model.add(tokens, rng.choice(["", "", "x"]), rng.randint(0, 2))
        elif roll < 0.6:
            model.extend(rng.randrange(count), [rng.randint(0, 1) for _ in range(rng.randint(1, 9))])
        elif roll < 0.65:
            model.fail(rng.randrange(count), [rng.randint(0, 1) for _ in range(rng.randint(1, 9))])
        elif roll < 0.99:
            model.release(rng.randrange(count))
        else:
            model.group.reset()
        if step % check_every == 0:
            model.check()
    return model.num_hits


def test_long_random_walk(seed):
    assert walk(random.Random(seed), 4000) > 0
