"""The prefix cache: the same blocks exactly for the same tokens under the same conditions."""

import random

import pytest

from tenon.cache.blocks import BlockPool
from tenon.cache.demand import Demand
from tenon.cache.groups import KVCache, NoCache, make_cache
from tenon.cache.prefix import BlockKey, PrefixCache
from tenon.core.messages import AddRequest
from tenon.core.request import Request
from tenon.core.sampling import SamplingParams
from tenon.errors import UnsupportedModel

from . import caches

SIZE = 4


def make_request(tokens, salt="", **params) -> Request:
    add = AddRequest(
        request_id="r", prompt_token_ids=tokens, params=SamplingParams(**params), cache_salt=salt
    )
    return Request(add, seq=0, max_model_len=1000)


def make(num_blocks=64, context=("model", "bfloat16")) -> KVCache:
    return caches.make_cache(num_blocks, SIZE, context=context)


def compute(group: KVCache, request: Request) -> Request:
    """Run a request's prompt at once; returns it."""
    assert group.admit(request, group.match(request), 0)
    group.commit(request, len(request.tokens))
    request.num_computed = len(request.tokens)
    return request


def random_tokens(count: int) -> list[int]:
    return [random.randrange(50_000) for _ in range(count)]


def test_equal_prompts_share_all_but_the_last_token():
    group = make()
    for length in range(1, 30):
        tokens = random_tokens(length)
        first = compute(group, make_request(tokens))
        second = compute(group, make_request(tokens))
        assert second.num_cached == (length - 1) // SIZE * SIZE
        shared = second.num_cached // SIZE
        assert second.blocks[0][:shared] == first.blocks[0][:shared]
        assert not set(second.blocks[0][shared:]) & set(first.blocks[0])
        group.check_integrity([first, second])
        group.release(first)
        group.release(second)
        assert group.pool.num_used == 0


def test_longest_common_prefix_is_found():
    group = make()
    base = random_tokens(32)
    compute(group, make_request(base))
    for common in range(33):
        other = [*base[:common], 50_001, *random_tokens(8)]
        assert len(group.match(make_request(other))) == common // SIZE


@pytest.mark.parametrize("what", ["secret", "context", "split context", "salt", "earlier token"])
def test_every_conditioner_separates(what):
    """Two caches with one digest table would collide if the digests did; so compare these."""
    tokens = random_tokens(12)

    def digests(secret=b"s", context=("ab", "c"), salt="", tokens=tokens):
        cache = PrefixCache(BlockPool(4), SIZE, secret, context)
        keys = []
        cache.extend_keys(keys, cache.root(salt), tokens, 3)
        return {key.digest for key in keys}

    changed = {
        "secret": {"secret": b"t"},
        "context": {"context": ("ab", "d")},
        "split context": {"context": ("a", "bc")},
        "salt": {"salt": "x"},
        "earlier token": {"tokens": [tokens[0] + 1, *tokens[1:]]},
    }
    assert digests() == digests()
    assert not digests() & digests(**changed[what])


def test_requests_that_differ_in_a_conditioner_share_no_block(seed):
    """Random conditioners, two requests that differ in exactly one of them, in caches of every size of block:
    no key of the one is a key of the other, and within one cache no block is shared."""
    rng = random.Random(seed)
    alphabet = ["", "a", "b", "ab", "aa", "\0", "a\0", "é", "\ud800"]
    for _ in range(300):
        words = [rng.choice(alphabet[:-1]) for _ in range(rng.randint(1, 3))]
        one = {
            "secret": rng.randbytes(8),
            "context": tuple(words),
            "salt": rng.choice(alphabet),
            "tokens": [rng.randrange(4) for _ in range(SIZE * 3)],
        }
        what = rng.choice(list(one))
        other = dict(one)
        while other[what] == one[what]:
            other |= {
                "secret": {"secret": rng.randbytes(8)},
                "context": {"context": tuple(rng.choice(alphabet[:-1]) for _ in range(rng.randint(1, 3)))},
                "salt": {"salt": rng.choice(alphabet)},
                "tokens": {"tokens": [rng.randrange(4), *one["tokens"][1:]]},
            }[what]
        assert not _digests(**one) & _digests(**other), (what, one, other)
        if what in ("salt", "tokens"):
            group = make()
            first = compute(group, make_request(one["tokens"], salt=one["salt"]))
            second = compute(group, make_request(other["tokens"], salt=other["salt"]))
            assert second.num_cached == 0
            assert not set(first.blocks[0]) & set(second.blocks[0])


def _digests(secret, context, salt, tokens):
    cache = PrefixCache(BlockPool(4), SIZE, secret, context)
    keys = []
    cache.extend_keys(keys, cache.root(salt), tokens, 3)
    return {key.digest for key in keys}


def test_salts_share_nothing():
    group = make()
    tokens = random_tokens(20)
    first = compute(group, make_request(tokens, salt="alice"))
    second = compute(group, make_request(tokens, salt="bob"))
    assert second.num_cached == 0
    assert not set(first.blocks[0]) & set(second.blocks[0])


def test_a_colliding_hash_costs_a_miss_not_a_wrong_block():
    """With one-bit hashes nearly every lookup collides; contents of found blocks must still be right."""
    group = make(num_blocks=4096)
    full_hash = group.prefix._hash
    group.prefix._hash = lambda data: bytes([full_hash(data)[0] & 1])
    content: dict[int, tuple] = {}
    for _ in range(300):
        salt = random.choice(["", "x"])
        tokens = [random.randrange(2) for _ in range(random.randint(1, 24))]
        request = make_request(tokens, salt)
        for i, entry in enumerate(group.match(request)):
            assert content[entry.blocks[0]] == (salt, *tokens[: (i + 1) * SIZE])
        compute(group, request)
        for i in range(request.num_cached // SIZE, len(tokens) // SIZE):
            content[request.blocks[0][i]] = (salt, *tokens[: (i + 1) * SIZE])
        group.prefix.check_integrity()


def test_two_contents_of_one_hash_are_two_entries():
    cache = PrefixCache(BlockPool(8), SIZE, b"secret")
    cache._hash = lambda data: b"same"
    root, other, blocks = cache.root(""), cache.root("x"), cache._pool.allocate(4)
    first = cache.insert(BlockKey(b"same", b"tokens"), root, blocks[:1])
    for number, (tokens, parent) in enumerate([(b"others", root), (b"tokens", other), (b"others", other)], 1):
        entry = cache.insert(BlockKey(b"same", tokens), parent, [blocks[number]])
        assert entry is not first
        assert entry.blocks == [-1]
    assert cache.insert(BlockKey(b"same", b"tokens"), root, [blocks[1]]) is first
    assert first.blocks == blocks[:1]


def test_a_lost_parent_comes_back_and_its_children_are_found_again():
    group = make(num_blocks=8)
    tokens = random_tokens(13)
    first = compute(group, make_request(tokens))
    group.forget(first.blocks[0][:1])
    assert len(group.match(make_request(tokens))) == 0
    second = compute(group, make_request(tokens[:5]))
    assert second.num_cached == 0
    assert len(group.match(make_request(tokens))) == 3
    group.check_integrity([first, second])


def test_two_that_compute_the_same_keep_their_own_blocks():
    group = make()
    tokens = random_tokens(9)
    one, two = make_request(tokens), make_request(tokens)
    assert group.admit(one, group.match(one), 0)
    assert group.admit(two, group.match(two), 0)
    assert group.commit(one, 9) == one.blocks[0][:2]
    assert group.commit(two, 9) == []
    group.release(two)
    group.release(one)
    assert len(group.match(make_request(tokens))) == 2
    group.check_integrity([])


def test_eviction_makes_room_and_forgets():
    group = make(num_blocks=4)
    tokens = random_tokens(16)
    group.release(compute(group, make_request(tokens)))
    assert len(group.prefix) == 4
    other = compute(group, make_request(random_tokens(8)))
    assert len(group.match(make_request([*tokens, 1]))) == 2, "the head of the old prefix survives"
    group.check_integrity([other])


def test_admission_keeps_the_reserve_and_counts_idle_hits_as_taken():
    group = make(num_blocks=4)
    tokens = random_tokens(16)
    group.release(compute(group, make_request(tokens)))
    again = make_request(tokens)
    assert not group.admit(again, group.match(again), 1), "4 blocks, all needed: none would stay in reserve"
    assert again.blocks == []
    group.check_integrity([again])
    assert group.admit(again, group.match(again), 0)
    assert again.num_computed == 12


def test_prompt_logprobs_need_every_token_computed():
    group = make()
    tokens = random_tokens(20)
    compute(group, make_request(tokens))
    assert group.match(make_request(tokens, prompt_logprobs=1)) == []


def test_reset_forgets_all_but_takes_nothing_away():
    group = make()
    request = compute(group, make_request(random_tokens(20)))
    group.reset()
    assert len(group.prefix) == 0
    group.check_integrity([request])
    request.tokens += random_tokens(8)
    assert group.grow(request, 28)
    group.commit(request, 28)
    group.release(request)
    group.check_integrity([])


def test_without_prefix_caching_nothing_is_kept():
    group = caches.make_cache(4, SIZE, prefix_caching=False)
    request = compute(group, make_request(random_tokens(13)))
    assert group.commit(request, 13) == []
    group.release(request)
    assert group.match(make_request(request.tokens)) == []
    group.reset()
    group.forget([0])
    group.check_integrity([])


def test_what_a_model_keeps_decides_the_cache():
    def make_for(*groups):
        return make_cache(Demand(groups, 32, 2048), 4, prefix_caching=True, secret=b"")

    assert isinstance(make_for(), NoCache)
    cache = make_for(caches.FULL)
    assert cache.capacity == 128
    assert cache.prefix is not None
    first = compute(cache, make_request(random_tokens(40)))
    compute(cache, make_request(first.tokens))
    assert (cache.num_queried, cache.num_hit) == (80, 32)
    with pytest.raises(UnsupportedModel, match="recurrent"):
        make_for(caches.STATE)
