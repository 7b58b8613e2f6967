"""The default model, on this machine's kernels, against figures of another implementation in float32.

tests/fixtures/smollm2_reference.json is made by scripts/make_reference_fixtures.py.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from tenon.core.files import ModelFiles
from tenon.models import load_model
from tenon.text.load import load_tokenizer
from tests.e2e.likelihood import mean_nll
from tests.models.driver import Driver

FIXTURES = Path(__file__).parents[1] / "fixtures"
REFERENCE = json.loads((FIXTURES / "smollm2_reference.json").read_text())
NLL_TOLERANCE = 0.005  # relative
SURE = 0.5  # nats by which the reference's choice leads: there tenon must make the same one


@pytest.fixture(scope="module", params=["bfloat16", "int8", "int16"])
def loaded(request, smollm2_gguf):
    if importlib.util.find_spec("tenon.kernels.cpu._native") is None:
        pytest.skip("the native kernels are not built: the references of the ops would take half an hour")
    assert hashlib.sha256(smollm2_gguf.read_bytes()).hexdigest() == REFERENCE["model_sha256"]
    files = ModelFiles("gguf", (smollm2_gguf,), "smollm2", smollm2_gguf.parent)
    return load_model(files, activations=request.param, max_model_len=2048)


@pytest.mark.parametrize("text", REFERENCE["texts"])
def test_texts_are_those_of_the_reference(smollm2_gguf, text):
    files = ModelFiles("gguf", (smollm2_gguf,), "smollm2", smollm2_gguf.parent)
    ids = load_tokenizer(files).encode((FIXTURES / "texts" / text).read_text(), add_special_tokens=False)
    assert ids[:2000] == REFERENCE["texts"][text]["token_ids"]


@pytest.mark.parametrize("text", REFERENCE["texts"])
def test_likelihood_of_texts(loaded, text, seed):
    ids = REFERENCE["texts"][text]["token_ids"]
    nll, expected = mean_nll(loaded, ids, seed), REFERENCE["texts"][text]["mean_nll"]
    print(f"{text}: {nll:.5f} nats, transformers {expected:.5f}: {nll / expected - 1:+.4%}")
    assert abs(nll / expected - 1) < NLL_TOLERANCE


def test_greedy_choices(loaded, seed):
    """All prompts in one batch, led along the reference: one close call cannot hide what comes after it."""
    runs = REFERENCE["greedy"]
    driver = Driver(loaded, np.random.default_rng(seed), num_sequences=len(runs), max_len=128)
    step = driver.step([(i, run["prompt_token_ids"]) for i, run in enumerate(runs)])
    sure = 0
    for position in range(len(runs[0]["token_ids"])):
        for run, logits_SV in zip(runs, step, strict=True):
            if run["margins"][position] > SURE:
                sure += 1
                assert int(logits_SV[-1].argmax()) == run["token_ids"][position], (run["prompt"], position)
        step = driver.step([(i, [run["token_ids"][position]]) for i, run in enumerate(runs)])
    assert sure > 100
