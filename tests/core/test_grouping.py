"""Layers are dealt out to groups of equal size, with little waste."""

import random

import pytest

from tenon.core.grouping import group_layers
from tenon.core.spec import KVGroup, StateArray

FULL = KVGroup("full", 1, 2, 16)
WINDOW = KVGroup("full", 1, 2, 16, window=40)
CHUNK = KVGroup("full", 1, 2, 16, local_chunk=64)
STATE = KVGroup("state", 1, arrays=(StateArray((2,)),))


def shape(groups) -> list[tuple[int, int, int]]:
    """(layers, of which real ones, window) of each."""
    return [(group.num_layers, len(group.layers), group.window) for group in groups]


@pytest.mark.parametrize("kind", [FULL, WINDOW, CHUNK])
def test_layers_of_one_kind_are_one_group(kind):
    (group,) = group_layers([kind] * 7)
    assert group.layers == tuple(range(7))
    assert (group.num_layers, group.window, group.local_chunk) == (7, kind.window, kind.local_chunk)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([WINDOW, WINDOW, WINDOW, FULL] * 8, [(8, 8, 0), *[(8, 8, 40)] * 3]),  # OLMo 3
        ([WINDOW, FULL] * 12, [(12, 12, 0), (12, 12, 40)]),  # GPT-OSS
        (([WINDOW] * 5 + [FULL]) * 8, [(8, 8, 0), *[(8, 8, 40)] * 5]),  # Gemma 3 12B
        # Gemma 3 4B, whose 34 layers do not divide: one place of 35 is empty.
        ((([WINDOW] * 5 + [FULL]) * 6)[:34], [(5, 5, 0), *[(5, 5, 40)] * 5, (5, 4, 40)]),
    ],
)
def test_published_models(layers, expected):
    assert shape(group_layers(layers)) == expected


@pytest.mark.parametrize(
    ("narrow", "wide", "layers", "expected"),
    [
        ((1, 256), (1, 512), "nnnnw" * 3, [(3, 3, 1, 0), *[(6, 6, 2, 40)] * 2]),  # Gemma 4 E2B
        (
            (2, 256),
            (2, 512),
            "nnnnnw" * 4,
            [(4, 4, 1, 0), (8, 8, 2, 40), (8, 8, 2, 40), (8, 4, 2, 40)],
        ),  # E4B
        # 26B-A4B and 31B: layers with a window keep more of a token
        ((8, 256), (2, 512), "nnnnnw" * 5, [(6, 5, 2, 0), *[(3, 3, 1, 40)] * 8, (3, 1, 1, 40)]),
        ((16, 256), (4, 512), "nnnnnw" * 10, [(10, 10, 2, 0), *[(5, 5, 1, 40)] * 10]),
        (
            (1, 48),
            (1, 32),
            "nw" * 6,
            [*[(3, 3, 3, 0)] * 2, *[(2, 2, 2, 40)] * 3],
        ),  # neither divides the other
    ],
)
def test_layers_of_different_shapes_share_memory(narrow, wide, layers, expected):
    kinds = {"n": KVGroup("full", 1, *narrow, window=40), "w": KVGroup("full", 1, *wide)}
    groups = group_layers([kinds[kind] for kind in layers])
    assert [(g.num_layers, len(g.layers), g.parts, g.window) for g in groups] == expected
    assert len({g.num_layers * g.numbers for g in groups}) == 1


def test_layers_of_different_shapes_have_groups_of_their_own_without_windows_too():
    groups = group_layers([KVGroup("full", 1, 2, 64)] * 3 + [KVGroup("full", 1, 2, 128)])
    assert [(g.num_layers, g.layers, g.parts) for g in groups] == [(2, (0, 1), 2), (2, (2,), 2), (1, (3,), 1)]


def test_latent_rows_and_heads_cannot_share_blocks():
    with pytest.raises(AssertionError, match="cannot share"):
        group_layers([KVGroup("latent", 1, 1, 64), KVGroup("full", 1, 1, 64)])


def test_one_window_among_many_layers_is_not_worth_it():
    (group,) = group_layers([FULL] * 20 + [WINDOW] + [FULL] * 20)
    assert shape([group]) == [(41, 41, 0)]


def test_states_are_a_group_of_their_own():
    groups = group_layers([STATE, STATE, STATE, FULL] * 2)
    assert [group.kind for group in groups] == ["full", "state"]
    assert groups[1].layers == (0, 1, 2, 4, 5, 6)
    assert groups[1].arrays == STATE.arrays


def test_every_layer_is_in_one_group_of_its_kind(seed):
    rng = random.Random(seed)
    for _ in range(200):
        kinds = rng.sample([FULL, WINDOW, CHUNK, STATE], rng.randint(1, 4))
        layers = [rng.choice(kinds) for _ in range(rng.randint(1, 70))]
        groups = group_layers(layers)
        assert sorted(layer for group in groups for layer in group.layers) == list(range(len(layers)))
        blocks = [group for group in groups if group.kind != "state"]
        assert len({group.num_layers for group in blocks}) <= 1
        assert [group.kind == "state" for group in groups] == sorted(
            group.kind == "state" for group in groups
        )
        for group in groups:
            assert len(group.layers) <= group.num_layers
            for layer in group.layers:
                same = (group.window, group.local_chunk) == (layers[layer].window, layers[layer].local_chunk)
                assert same or (len(blocks) == 1 and not group.bounded)
        wasted = sum(group.num_layers - len(group.layers) for group in blocks)
        assert wasted < max(1, sum(len(group.layers) for group in blocks)), "more is wasted than used"
