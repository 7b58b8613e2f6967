"""Millions of steps of the plain drivers of pool, prefix cache and scheduler, with all their checks."""

import random

import pytest

from tests.cache import test_blocks, test_groups
from tests.engine import test_scheduler

from .budget import many

PART = 50_000  # steps of one walk: then another seed


def parts(seed: int, steps: int):
    """A generator of random numbers for each part; the seed of the one that fails is printed."""
    rng = random.Random(seed)
    for number in range(max(1, steps // PART)):
        own = rng.randrange(2**32)
        print(f"part {number}: seed {own}")
        yield random.Random(own)


def test_the_pool(seed):
    for rng in parts(seed, many(20_000_000)):
        test_blocks.walk(rng, PART, check_every=100)


def test_the_prefix_cache(seed):
    hits = 0
    for rng in parts(seed, many(6_000_000)):
        hits += test_groups.walk(rng, PART, check_every=200)
    assert hits > 0


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("paced", [True, False])
def test_the_scheduler(policy, prefix, paced, seed):
    for rng in parts(seed, many(1_000_000)):
        test_scheduler.walk(rng, policy, prefix, paced, PART)
