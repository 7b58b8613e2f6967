"""What a request holds at most, by formula and by trying."""

import random
from dataclasses import replace

import pytest

from tenon.cache.demand import ENDLESS, Demand

from .caches import FULL, STATE, chunk, window


@pytest.mark.parametrize("bound", [window, chunk])
def test_a_bounded_group_never_needs_more_than_its_peak(bound, seed):
    rng = random.Random(seed)
    for _ in range(100):
        length, size, step = rng.randint(1, 50), rng.randint(1, 9), rng.randint(1, 30)
        group = bound(length)
        demand = Demand([group], size, step)
        most = max(
            (start + step - 1) // size - group.first_seen(start) // size + 1
            for start in range(3 * length * size)
        )
        assert most <= demand.peaks[0] <= most + 1
        assert demand.blocks(10**6) == demand.peaks[0] <= -(-(length + step) // size) + 1


def test_tokens_is_the_inverse_of_blocks(seed):
    rng = random.Random(seed)
    for _ in range(200):
        groups = rng.choices([FULL, window(7), chunk(12)], k=rng.randint(1, 5))
        demand = Demand(groups, rng.randint(1, 8), rng.randint(1, 20))
        have = rng.randint(0, 100)
        tokens = demand.tokens(have)
        assert demand.blocks(min(tokens, 10**6)) <= have
        assert tokens == ENDLESS or demand.blocks(tokens + 1) > have


def test_a_block_has_as_many_parts_as_any_group_wants():
    assert Demand([FULL, replace(FULL, parts=3), replace(window(8), parts=2)], 4, 4).parts == 3
    assert Demand([STATE], 4, 4).parts == 1


def test_windows_alone_hold_any_length():
    assert Demand([window(8)], 4, 4).tokens(4) == ENDLESS
    assert Demand([window(8), FULL], 4, 4).tokens(4) == 8


def test_states_take_no_blocks():
    demand = Demand([FULL, STATE], 4, 16)
    assert demand.stateful
    assert demand.blocks(17) == 5
