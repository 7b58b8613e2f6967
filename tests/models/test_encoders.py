"""Encoders against transformers, float32, on tiny random models: states, classifiers and cross-encoders."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from tenon.errors import ModelFileError, UnsupportedModel
from tenon.models import load_model
from tests.models.encoders import (
    ENCODERS,
    architectures,
    change_config,
    packed,
    reference,
    save,
    sentences,
    states,
)
from tests.models.families import tiny

TOLERANCE = 1e-4  # of the largest value
LENGTHS = [1, 33, 7, 90, 32, 64]
TYPED = [name for name in ENCODERS if name == "bert"]  # those that tell a pair's texts apart by types

CLASSIFIERS = [(family, name) for family in ENCODERS for name in architectures(family, "classify")]


@pytest.fixture(autouse=True)
def _quiet(caplog):
    """Reference ops warn once; that is not what these tests are about."""
    caplog.set_level(logging.ERROR, "tenon.ops.select")


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


def error(got, expected):
    """Relative to the largest value; a single logit may be near zero by chance."""
    return float(np.abs(got - expected).max() / max(np.abs(expected).max(), 1))


@pytest.mark.parametrize(
    ("family", "architecture"),
    [(family, name) for family in ENCODERS for name in architectures(family, "embed")],
)
def test_states_match_transformers(family, architecture, tmp_path, seed, rng):
    model, files = save(family, architecture, tmp_path, seed)
    body = getattr(model, model.base_model_prefix, model)
    texts = sentences(rng, LENGTHS)
    got = states(load_model(files, "float32"), packed(texts))
    for text, states_TD in zip(texts, got, strict=True):
        assert error(states_TD, reference(body, text).last_hidden_state[0].numpy()) < TOLERANCE


@pytest.mark.parametrize("family", TYPED)
def test_pairs_are_told_apart_by_type(family, tmp_path, seed, rng):
    model, files = save(family, architectures(family, "embed")[0], tmp_path, seed)
    texts = sentences(rng, LENGTHS)
    types = [np.sort(rng.integers(0, 2, len(text))).tolist() for text in texts]
    got = states(load_model(files, "float32"), packed(texts, types))
    for text, own, states_TD in zip(texts, types, got, strict=True):
        assert error(states_TD, reference(model, text, own).last_hidden_state[0].numpy()) < TOLERANCE


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh"])
def test_gelu_by_tanh(activation, tmp_path, seed, rng):
    model, files = save("bert", "BertModel", tmp_path, seed, hidden_act=activation)
    (text,) = sentences(rng, [40])
    (states_TD,) = states(load_model(files, "float32"), packed([text]))
    assert error(states_TD, reference(model, text).last_hidden_state[0].numpy()) < TOLERANCE


@pytest.mark.parametrize(("family", "architecture"), CLASSIFIERS)
@pytest.mark.parametrize("count", [1, 5])
def test_classifiers_match_transformers(family, architecture, count, tmp_path, seed, rng):
    model, files = save(family, architecture, tmp_path, seed, num_labels=count)
    loaded = load_model(files, "float32")
    spec = loaded.spec.pooling
    assert (spec.task, spec.width, spec.scores_pairs) == ("classify", count, count == 1)
    texts = sentences(rng, LENGTHS)
    got = states(loaded, packed(texts))
    pick = {"cls": lambda x: x[0], "mean": lambda x: x.mean(0)}[spec.pooling]
    logits_RN = loaded.head(np.stack([pick(states_TD) for states_TD in got]))
    for text, logits_N in zip(texts, logits_RN, strict=True):
        assert error(logits_N, reference(model, text).logits[0].numpy()) < TOLERANCE


@pytest.mark.parametrize("family", ENCODERS)
def test_bfloat16_stays_close(family, tmp_path, seed, rng):
    model, files = save(family, architectures(family, "embed")[0], tmp_path, seed)
    (text,) = sentences(rng, [64])
    (states_TD,) = states(load_model(files, "bfloat16"), packed([text]))
    expected_TD = reference(model, text).last_hidden_state[0].numpy()
    assert np.linalg.norm(states_TD - expected_TD) < 5e-2 * np.linalg.norm(expected_TD)


@pytest.mark.parametrize("family", ENCODERS)
def test_what_the_model_needs_and_has_not(family, tmp_path, seed):
    _, files = save(family, architectures(family, "embed")[0], tmp_path, seed)
    layers = tiny(family)["num_hidden_layers"]
    change_config(files, num_hidden_layers=layers + 1, layer_types=None)
    with pytest.raises(ModelFileError, match=rf"layers?\.{layers}.*is missing"):
        load_model(files)
    change_config(files, num_hidden_layers=1)
    with pytest.raises(ModelFileError, match="unexpected tensors"):
        load_model(files)
    change_config(files, num_hidden_layers=layers, hidden_size=66)
    with pytest.raises(ModelFileError, match=r"heads"):
        load_model(files)


@pytest.mark.parametrize("changes", [{"hidden_act": "mish"}, {"position_embedding_type": "relative_key"}])
def test_what_is_not_supported_is_named(changes, tmp_path, seed):
    _, files = save("bert", "BertModel", tmp_path, seed)
    change_config(files, **changes)
    with pytest.raises(UnsupportedModel, match=next(iter(changes.values()))):
        load_model(files)


def test_a_modernbert_of_older_files(tmp_path, seed, rng):
    """Kinds of layers and bases of the rotation by their older names."""
    settings = {"global_rope_theta": 5000.0, "local_rope_theta": 500.0}
    theta = {"full_attention": {"rope_theta": 5000.0}, "sliding_attention": {"rope_theta": 500.0}}
    model, files = save("modernbert", "ModernBertModel", tmp_path, seed, rope_parameters=theta)
    change_config(files, rope_parameters=None, layer_types=None, **settings)
    (text,) = sentences(rng, [90])
    (states_TD,) = states(load_model(files, "float32"), packed([text]))
    assert error(states_TD, reference(model, text).last_hidden_state[0].numpy()) < TOLERANCE
    change_config(files, layer_types=["full_attention", "dense", "dense", "dense"])
    with pytest.raises(ModelFileError, match="layer_types"):
        load_model(files)
    change_config(files, layer_types=None, rope_parameters={"full_attention": {"rope_type": "yarn"}})
    with pytest.raises(UnsupportedModel, match="yarn"):
        load_model(files)


def test_positions_of_roberta_begin_behind_the_padding(tmp_path, seed):
    _, files = save("roberta", "RobertaModel", tmp_path, seed)
    assert load_model(files).spec.max_position == 128
    change_config(files, max_position_embeddings=2)
    with pytest.raises(ModelFileError, match="above 2"):
        load_model(files)
