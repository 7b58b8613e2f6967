"""MiniCPM's sparse attention against the reference, in steps of all kinds, and what `sparse_config` says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tenon.core.files import ModelFiles
from tenon.errors import ModelFileError, UnsupportedModel, UnsupportedOp
from tenon.models import load_model
from tests.models.driver import Driver
from tests.models.families import make, reference_logits, save_gguf, save_safetensors, tiny
from tests.models.minicpm_reference import SparseAttention
from tests.models.test_parity import FLOAT32_TOLERANCE, error, prompt

SPARSE = tiny("minicpm")["sparse_config"]
# Five blocks of 32 are seen, of up to fifteen, and two of them are chosen. The published rule, by sequence,
# and the one by token differ for tokens that see less than their context and are before dense_len: not here.
PUBLISHED = {**SPARSE, "dense_len": 64}
MUCH_DENSE = {**SPARSE, "dense_len": 300}
WIDE = {**SPARSE, "kernel_size": 32, "kernel_stride": 16, "block_size": 64, "window_size": 64, "topk": 3}
NOTHING_CHOSEN = {**SPARSE, "init_blocks": 2, "window_size": 96, "topk": 3, "dense_len": 64}
LENGTH = 470
SURE = 5e-5  # of a score; rounding errors are smaller


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


def sure_logits(reference, rng, lengths, by_token):
    """Prompts, and logits of the reference: prompts whose blocks are chosen by more than rounding errors."""
    layers = [module for module in reference.modules() if isinstance(module, SparseAttention)]
    prompts, logits = [], []
    for length in lengths:
        for _ in range(100):
            for layer in layers:
                layer.by_token, layer.margin = by_token, np.inf
            tokens = prompt(rng, length)
            expected = reference_logits(reference, tokens)
            if min(layer.margin for layer in layers) > SURE:
                break
        else:
            pytest.fail("no prompt leaves the choice of blocks beyond doubt")
        prompts.append(tokens)
        logits.append(expected)
    return prompts, logits


def load(reference, path):
    return load_model(save_safetensors(reference, path), "float32")


@pytest.mark.parametrize(
    ("sparse", "by_token"),
    [(PUBLISHED, False), (MUCH_DENSE, True), (WIDE, True), (NOTHING_CHOSEN, False)],
    ids=["published", "much-dense", "wide", "nothing-chosen"],
)
def test_ragged_steps_match_the_reference(sparse, by_token, tmp_path, seed, rng):
    """In one piece; and in chunks that end anywhere in windows and blocks, single tokens among them."""
    reference = make({**tiny("minicpm"), "sparse_config": sparse}, seed)
    lengths = (LENGTH, 310)
    prompts, expected = sure_logits(reference, rng, lengths, by_token)
    model = load(reference, tmp_path)
    (whole,) = Driver(model, rng).step([(0, prompts[0])])
    assert error(whole, expected[0]) < FLOAT32_TOLERANCE

    driver = Driver(model, rng)
    got = [[] for _ in prompts]
    while unfinished := [i for i, tokens in enumerate(prompts) if driver.lengths[i] < len(tokens)]:
        chosen = rng.permutation(unfinished)[: rng.integers(1, 3)]
        sizes = [int(rng.choice([1, 7, 33, 90])) for _ in chosen]
        work = [(int(i), prompts[i][driver.lengths[i] :][:n]) for i, n in zip(chosen, sizes, strict=True)]
        for (i, _), logits_SV in zip(work, driver.step(work), strict=True):
            got[i].append(logits_SV)
    for parts, logits in zip(got, expected, strict=True):
        assert error(np.concatenate(parts), logits) < FLOAT32_TOLERANCE


def test_blocks_that_are_not_chosen_are_not_seen(tmp_path, seed, rng):
    """Without sparse_config the same weights give other logits, from the first token on that sees less."""
    reference = make({**tiny("minicpm"), "sparse_config": PUBLISHED}, seed)
    model = load(reference, tmp_path)
    dense = load_model(edited(tmp_path, None), "float32")
    tokens = prompt(rng, LENGTH)
    (sparse_SV,), (dense_SV,) = (Driver(m, rng).step([(0, tokens)]) for m in (model, dense))
    seen = SPARSE["topk"] * SPARSE["block_size"] + SPARSE["window_size"]
    assert np.array_equal(sparse_SV[:seen], dense_SV[:seen])
    assert error(sparse_SV[seen:], dense_SV[seen:]) > 100 * FLOAT32_TOLERANCE


def edited(directory, sparse):
    """The checkpoint with another `sparse_config`."""
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sparse_config": sparse}))
    return ModelFiles("hf", tuple(sorted(directory.glob("*.safetensors"))), "tiny", directory)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"kernel_size": 64}, UnsupportedModel, "kernel_size must be twice its kernel_stride"),
        ({"use_nope": True}, UnsupportedModel, "use_nope is not supported"),
        ({"kernel_size": 24, "kernel_stride": 12}, ModelFileError, "sparse_config.*multiple of 8"),
        ({"block_size": 20}, ModelFileError, "sparse_config.*multiples of a stride"),
        ({"topk": 1}, ModelFileError, "sparse_config.*more than all"),
        ({"dense_len": 8}, ModelFileError, "sparse_config.*dense_len"),
        ({"topk": "many"}, ModelFileError, "topk"),
        ({"init_blocks": -1}, ModelFileError, "init_blocks"),
    ],
)
def test_what_cannot_be_honoured_is_refused(changes, kind, message, tmp_path, seed):
    reference = make(tiny("minicpm"), seed)
    save_safetensors(reference, tmp_path)
    with pytest.raises(kind, match=message):
        load_model(edited(tmp_path, {**SPARSE, **changes}), "float32")


def test_blocks_of_the_cache_must_fit(tmp_path, seed):
    model = load(make(tiny("minicpm"), seed), tmp_path)
    with pytest.raises(UnsupportedOp, match="cannot use cache blocks of 64; set block_size to 32"):
        model.kv_caches(4, 64)


def test_gguf_is_dense(tmp_path, seed):
    """The format has no place for it."""
    reference = make({**tiny("minicpm"), "sparse_config": None}, seed)
    assert load_model(save_gguf(reference, tmp_path / "m.gguf"), "float32").sparsity is None
