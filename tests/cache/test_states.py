"""Slots of recurrent state, case by case; tests/cache/test_groups.py has random ones."""

import random

from tenon.cache.groups import KVCache
from tenon.core.request import Request

from . import caches
from .test_prefix import make_request

SIZE = 4


def make(num_slots=8, **fields) -> KVCache:
    return caches.make_cache(100, SIZE, caches.FULL, caches.STATE, num_slots=num_slots, **fields)


def admit(cache: KVCache, request: Request) -> bool:
    return cache.admit(request, cache.match(request), 0)


def step(cache: KVCache, request: Request, size: int = 1000) -> tuple[int, int]:
    """Computes tokens of an admitted request; returns the slots it read and wrote."""
    count = min(size, len(request.tokens) - request.num_computed)
    count = cache.cut(request, count) if count > 1 else count
    needed = request.num_computed + count
    assert needed <= request.room or cache.grow(request, needed)
    cache.commit(request, needed)
    slots = request.state_in, request.state_out
    request.num_computed = needed
    cache.settle([request])
    return slots


def compute(cache: KVCache, request: Request) -> Request:
    assert admit(cache, request)
    while request.num_computed < len(request.tokens):
        step(cache, request)
    return request


def decode(cache: KVCache, request: Request, count: int) -> None:
    for _ in range(count):
        request.tokens.append(7)
        step(cache, request)


def random_tokens(count: int) -> list[int]:
    return [random.randrange(50_000) for _ in range(count)]


def test_a_prompt_is_found_up_to_its_last_full_block():
    cache, tokens = make(), random_tokens(22)
    compute(cache, make_request(tokens))
    assert len(cache.match(make_request(tokens))) == 5
    assert len(cache.match(make_request([*tokens, 1, 2, 3]))) == 5
    assert len(cache.match(make_request(tokens[:18]))) == 0, "no step ended there"


def test_nobody_writes_a_snapshot():
    cache, tokens = make(), random_tokens(22)
    one = make_request(tokens)
    assert admit(cache, one)
    first = step(cache, one)
    assert first[0] == -1
    assert one.num_computed == 20
    second = step(cache, one)
    assert second[0] == first[1] != second[1]
    two, three = make_request(tokens), make_request(tokens)
    assert admit(cache, two)
    assert admit(cache, three)
    assert two.state_in == three.state_in == first[1]
    assert len({two.state_out, three.state_out, *first, *second}) == 5
    cache.check_integrity([one, two, three])


def test_of_its_output_a_request_keeps_the_latest_snapshot():
    cache = make(num_slots=20)
    request = compute(cache, make_request(random_tokens(10)))
    prompt = request.tokens[:10]
    for _ in range(6):
        decode(cache, request, SIZE)
        assert len(cache.prefix._by_slot) == 2
    known = request.tokens[: request.num_computed // SIZE * SIZE]
    assert len(cache.match(make_request([*known, 1]))) == len(known) // SIZE
    assert len(cache.match(make_request([*known[:-SIZE], 1]))) == 2
    assert len(cache.match(make_request(prompt))) == 2
    cache.check_integrity([request])


def test_where_prompts_part_a_snapshot_is_made_for_those_that_follow():
    cache, common = make(), random_tokens(17)
    compute(cache, make_request(common + random_tokens(9)))
    second = make_request(common + random_tokens(9))
    assert cache.match(second) == []
    assert admit(cache, second)
    step(cache, second)
    assert second.num_computed == 16
    assert len(cache.match(make_request(common + random_tokens(9)))) == 4


def test_a_request_alone_gets_on_with_one_slot(seed):
    rng = random.Random(seed)
    cache, tokens = make(num_slots=1), random_tokens(30)
    for _ in range(3):
        request = compute(cache, make_request(tokens[: rng.randint(5, 30)]))
        decode(cache, request, 10)
        other = make_request(random_tokens(6))
        assert not admit(cache, other), "there is no slot for it"
        assert not other.blocks
        cache.check_integrity([request])
        cache.release(request)
    cache.check_integrity([])


def test_two_that_start_from_one_snapshot_need_a_slot_each():
    cache, tokens = make(num_slots=2), random_tokens(9)
    cache.release(compute(cache, make_request(tokens)))
    one, two = make_request(tokens), make_request(tokens)
    assert admit(cache, one)
    assert one.num_computed == 8
    assert not admit(cache, two)
    step(cache, one)
    assert admit(cache, two)
    assert two.num_computed == 0 or two.state_in != one.state_in
    cache.check_integrity([one, two])


def test_room_asked_for_twice_costs_one_slot():
    cache, tokens = make(), random_tokens(22)
    cache.release(compute(cache, make_request(tokens)))
    request = make_request(tokens)
    assert admit(cache, request)
    before = request.state_in, request.state_out
    assert cache.grow(request, len(tokens))
    assert (request.state_in, request.state_out) == before
    cache.check_integrity([request])


def test_without_prefix_caching_each_has_one_slot_for_good():
    cache = make(num_slots=2, prefix_caching=False)
    one, two = (compute(cache, make_request(random_tokens(9))) for _ in range(2))
    before = one.state_in, two.state_in
    for request in (one, two):
        decode(cache, request, 9)
    assert (one.state_in, two.state_in) == before


def test_reset_forgets_states_but_takes_none_away():
    cache, tokens = make(), random_tokens(9)
    request = compute(cache, make_request(tokens))
    cache.reset()
    assert cache.match(make_request(tokens)) == []
    decode(cache, request, 9)
    cache.check_integrity([request])
