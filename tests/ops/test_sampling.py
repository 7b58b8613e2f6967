"""What `sample` promises, on whichever backend is selected."""

import numpy as np
import pytest

from tenon import ops
from tenon.ops.sampling import kept_weights, philox, uniform


def sample_one(logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=0, choice=0, position=0):
    rows = [
        np.array([value], dtype)
        for value, dtype in [
            (temperature, np.float32),
            (top_k, np.int32),
            (top_p, np.float32),
            (min_p, np.float32),
            (seed, np.uint64),
            (choice, np.int32),
            (position, np.int64),
        ]
    ]
    return int(ops.sample(np.asarray(logits, np.float32)[None], *rows)[0])


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # known answers published with the generator (Random123)
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter, key, expected):
    assert philox(counter, key) == expected


def test_greedy_takes_the_lowest_id_of_equals():
    assert sample_one([1, 5, 5, 2], temperature=0) == 1


@pytest.mark.parametrize("bad", [[0, np.nan], [np.inf, 0], [-np.inf, -np.inf]])
@pytest.mark.parametrize("temperature", [0, 1])
def test_rows_without_a_distribution_give_minus_one(bad, temperature):
    assert sample_one(bad, temperature) == -1


def test_masked_tokens_are_never_drawn(seed):
    logits = np.full(50, -np.inf)
    logits[[7, 31]] = 0
    drawn = {sample_one(logits, seed=seed, position=i) for i in range(64)}
    assert drawn == {7, 31}


def test_filters_apply_in_order():
    logits = np.log([0.4, 0.3, 0.2, 0.1])
    assert (kept_weights(logits, 1, 3, 1, 0) > 0).tolist() == [True, True, True, False]
    assert (kept_weights(logits, 1, 0, 0.7 - 1e-6, 0) > 0).tolist() == [True, True, False, False]
    # After top_k=2 the shares are 4/7 and 3/7: top_p=0.5 is reached by the first alone.
    assert (kept_weights(logits, 1, 2, 0.5, 0) > 0).tolist() == [True, False, False, False]
    assert (kept_weights(logits, 1, 0, 1, 0.5 + 1e-6) > 0).tolist() == [True, True, False, False]


def test_ties_at_a_filter_go_to_lower_ids(seed):
    drawn = {sample_one([1, 1, 1, 1], top_k=2, seed=seed, position=i) for i in range(64)}
    assert drawn == {0, 1}


def test_frequencies_follow_the_distribution(seed):
    p = np.array([0.5, 0.25, 0.125, 0.125])
    count = 4000
    logits_SV = np.tile(np.log(p).astype(np.float32), (count, 1))
    fill = [
        np.full(count, v, t) for v, t in [(1, "f4"), (0, "i4"), (1, "f4"), (0, "f4"), (seed, "u8"), (3, "i4")]
    ]
    ids_S = ops.sample(logits_SV, *fill, np.arange(count))
    np.testing.assert_allclose(np.bincount(ids_S, minlength=4) / count, p, atol=0.04)


def test_draws_depend_on_seed_choice_and_position():
    numbers = {uniform(s, c, p) for s in (0, 1 << 40) for c in (0, 1) for p in (0, 1 << 33)}
    assert len(numbers) == 8
    assert all(0 <= u < 1 for u in numbers)
