"""Groups of layers, and what a token of theirs sees."""

import random

from tenon.core.spec import KVGroup, ModelSpec, StateArray


def test_layers_know_their_group():
    groups = (
        KVGroup("full", 2, 1, 16, layers=(1, 4)),
        KVGroup("full", 2, 1, 16, layers=(0, 3), window=8),
        KVGroup("state", 1, layers=(2,), arrays=(StateArray((4, 2)), StateArray((3,), "bfloat16"))),
    )
    spec = ModelSpec("x", 10, 64, groups, (), "float32")
    assert [spec.group_of(layer) for layer in range(5)] == [1, 0, 0, 1, 0]
    assert spec.state_bytes_per_slot == 4 * 8 + 2 * 3


def test_a_group_of_which_nothing_is_said_has_the_first_layers():
    assert KVGroup("full", 3, 1, 16).layers == (0, 1, 2)


def test_first_seen_is_the_least_that_any_later_token_sees(seed):
    rng = random.Random(seed)
    for _ in range(200):
        window, chunk = rng.choice([0, rng.randint(1, 40)]), rng.choice([0, rng.randint(1, 40)])
        group = KVGroup("full", 1, 1, 16, window=window, local_chunk=chunk)

        def sees(position, other, window=window, chunk=chunk):
            near = not window or position - other < window
            return other <= position and near and (not chunk or other >= position // chunk * chunk)

        at = rng.randrange(100)
        seen = [other for p in range(at, at + 50) for other in range(p + 1) if sees(p, other)]
        assert group.first_seen(at) == min(seen)
