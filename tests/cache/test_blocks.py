"""The block pool against a plain model of it, on random walks by Hypothesis (it shrinks) and a driver."""

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tenon.cache.blocks import BlockPool


class PoolModel:
    """A pool, and what it should look like: block lists of holders, idle blocks from oldest to newest."""

    def __init__(self, num_blocks: int) -> None:
        self.evicted: list[int] = []
        self.pool = BlockPool(num_blocks, self.evicted.append)
        self.holders: list[list[int]] = []
        self.cached: set[int] = set()
        self.idle: list[int] = []

    def allocate(self, count: int) -> None:
        held = {block for blocks in self.holders for block in blocks}
        expected = self.pool.num_blocks - len(held)
        assert self.pool.num_free == expected
        blocks = self.pool.allocate(count)
        if count > expected:
            assert blocks is None
            assert not self.evicted
            return
        assert not held & set(blocks), "handed out a block that somebody holds"
        # Idle blocks go only when nothing is free, the oldest first.
        evictions = max(0, count - (expected - len(self.idle)))
        assert self.evicted == self.idle[:evictions]
        self.cached -= set(self.evicted)
        del self.idle[:evictions]
        self.evicted.clear()
        self.holders.append(blocks)

    def cache(self, holder: int, index: int) -> None:
        block = self.holders[holder][index]
        if block not in self.cached:
            self.pool.mark_cached(block)
            self.cached.add(block)

    def share(self, count: int) -> None:
        """A new holder of some cached blocks."""
        blocks = sorted(self.cached)[:count]
        for block in blocks:
            self.pool.hold(block)
            if block in self.idle:
                self.idle.remove(block)
        self.holders.append(blocks)

    def release(self, holder: int) -> None:
        blocks = self.holders.pop(holder)
        self.pool.release(blocks)
        left = {block for others in self.holders for block in others}
        self.idle += [b for b in reversed(blocks) if b in self.cached and b not in left]

    def uncache(self, index: int) -> None:
        block = sorted(self.cached)[index]
        self.pool.unmark_cached(block)
        self.cached.discard(block)
        if block in self.idle:
            self.idle.remove(block)

    def check(self) -> None:
        self.pool.check_integrity(self.holders)
        assert self.pool.num_used + self.pool.num_free == self.pool.num_blocks
        if not self.holders:
            assert self.pool.num_used == 0


class PoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.model = PoolModel(7)

    @rule(count=st.integers(0, 8))
    def allocate(self, count):
        self.model.allocate(count)

    @precondition(lambda self: any(self.model.holders))
    @rule(data=st.data())
    def cache(self, data):
        holder = data.draw(st.sampled_from([i for i, blocks in enumerate(self.model.holders) if blocks]))
        self.model.cache(holder, data.draw(st.integers(0, len(self.model.holders[holder]) - 1)))

    @rule(count=st.integers(0, 4))
    def share(self, count):
        self.model.share(count)

    @precondition(lambda self: self.model.holders)
    @rule(data=st.data())
    def release(self, data):
        self.model.release(data.draw(st.integers(0, len(self.model.holders) - 1)))

    @precondition(lambda self: self.model.cached)
    @rule(data=st.data())
    def uncache(self, data):
        self.model.uncache(data.draw(st.integers(0, len(self.model.cached) - 1)))

    @invariant()
    def check(self):
        self.model.check()


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPool = PoolMachine.TestCase


def walk(rng: random.Random, steps: int, check_every: int = 20) -> None:
    """The same, driven by a seed."""
    model = PoolModel(rng.randint(1, 24))
    for step in range(steps):
        roll = rng.random()
        if roll < 0.35:
            model.allocate(rng.randint(0, 6))
        elif roll < 0.5:
            if any(model.holders):
                holder = rng.choice([i for i, blocks in enumerate(model.holders) if blocks])
                model.cache(holder, rng.randrange(len(model.holders[holder])))
        elif roll < 0.6:
            model.share(rng.randint(0, 5))
        elif roll < 0.97:
            if model.holders:
                model.release(rng.randrange(len(model.holders)))
        elif model.cached:
            model.uncache(rng.randrange(len(model.cached)))
        if step % check_every == 0:
            model.check()


def test_long_random_walk(seed):
    walk(random.Random(seed), 20_000)


def test_double_free_raises():
    pool = BlockPool(4)
    blocks = pool.allocate(2)
    pool.release(blocks)
    with pytest.raises(RuntimeError, match="double free"):
        pool.release(blocks)


def test_the_tail_of_a_prefix_is_evicted_first():
    pool = BlockPool(3)
    blocks = pool.allocate(3)
    for block in blocks:
        pool.mark_cached(block)
    pool.release(blocks)
    assert [pool.allocate(1)[0] for _ in range(3)] == blocks[::-1]


def test_integrity_check_sees_a_leak():
    pool = BlockPool(4)
    pool.allocate(1)
    with pytest.raises(AssertionError, match="references"):
        pool.check_integrity([])
