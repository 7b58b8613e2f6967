"""`LLM` with models that give vectors: tiny ones, and all-MiniLM-L6-v2 against sentence-transformers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tenon import LLM
from tenon.core.pooling import PoolingParams
from tenon.errors import ConfigError, InvalidRequest, UnsupportedModel
from tests.models.encoders import reference, save
from tests.text.test_inputs import word_piece

TEXTS = [
    "A",
    "The quick brown fox jumps over the lazy dog.",
    "Wie geht es dir heute? Ich möchte wissen, ob du kommst.",
    "模型 and ünïcödé, with [SEP] inside",
    "A long text. " * 150,
    "SELECT name FROM users WHERE id = 42;",
    "   spaces\tand\nlines   ",
]


@pytest.fixture
def bert(tmp_path, seed):
    """A tiny BERT with a tokenizer."""
    model, files = save("bert", "BertModel", tmp_path, seed)
    word_piece().save(str(files.directory / "tokenizer.json"))
    return model, files.directory


@pytest.fixture
def cross_encoder(tmp_path, seed):
    model, files = save("bert", "BertForSequenceClassification", tmp_path, seed, num_labels=1)
    word_piece().save(str(files.directory / "tokenizer.json"))
    return model, files.directory


@pytest.fixture(scope="module")
def llm(minilm):
    return LLM(str(minilm))


def cosine_distance(a, b):
    return 1 - float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.fixture(scope="module")
def sentence_transformer(minilm):
    module = pytest.importorskip("sentence_transformers")
    return module.SentenceTransformer(str(minilm), device="cpu")


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_minilm_gives_the_vectors_of_sentence_transformers(dtype, minilm, sentence_transformer):
    outputs = LLM(str(minilm), dtype=dtype).embed(TEXTS, truncate_prompt_tokens=-1)
    expected = sentence_transformer.encode(TEXTS)
    for output, vector in zip(outputs, expected, strict=True):
        assert output.outputs.embedding.shape == (384,)
        assert cosine_distance(output.outputs.embedding, vector) < (1e-3 if dtype == "auto" else 1e-6)
    assert len(outputs[4].prompt_token_ids) == 256


def test_minilm_scores_what_is_alike_higher(llm):
    scores = llm.score("a dog", ["a puppy", "the stock market"])
    assert scores[0].outputs.score > scores[1].outputs.score + 0.3


def test_a_vector_for_each_token(llm):
    (output,) = llm.encode("hello world", PoolingParams(task="token_embed"))
    assert output.outputs.data.shape == (4, 384)


def test_texts_that_are_too_long_are_refused_or_cut(llm):
    with pytest.raises(InvalidRequest, match=r"prompts\[1\].*256.*truncate_prompt_tokens"):
        llm.embed(["short", "long " * 300])
    (cut,) = llm.embed("one two three four five", truncate_prompt_tokens=4)
    (same,) = llm.embed("one two")
    assert cut.prompt_token_ids == same.prompt_token_ids
    for wrong in (0, -2, 257, "4"):
        with pytest.raises(InvalidRequest, match="truncate_prompt_tokens"):
            llm.embed("x", truncate_prompt_tokens=wrong)


def test_what_the_model_is_not_for(llm):
    with pytest.raises(InvalidRequest, match="embed, classify"):
        llm.generate("x")
    with pytest.raises(InvalidRequest, match="gives embeddings"):
        llm.classify("x")
    with pytest.raises(InvalidRequest, match="empty"):
        llm.embed([[]])
    with pytest.raises(InvalidRequest, match=r"between 0 and 30521"):
        llm.embed([[30522]])


def test_token_ids(bert):
    llm = LLM(str(bert[1]))
    by_text, by_ids, by_dict = llm.embed(
        ["the dogs", [2, 8, 10, 11, 3], {"prompt_token_ids": [2, 8, 10, 11, 3]}]
    )
    assert by_text.prompt_token_ids == by_ids.prompt_token_ids
    np.testing.assert_array_equal(by_text.outputs.embedding, by_ids.outputs.embedding)
    np.testing.assert_array_equal(by_text.outputs.embedding, by_dict.outputs.embedding)


def test_a_cross_encoder(cross_encoder):
    model, directory = cross_encoder
    llm = LLM(str(directory), dtype="float32")
    (output,) = llm.score("the dog", "walked, playing")
    ids = [2, 8, 10, 3, 7, 6, 12, 4, 5, 3]
    assert output.prompt_token_ids == ids
    expected = reference(model, ids, [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]).logits[0, 0].sigmoid()
    assert output.outputs.score == pytest.approx(float(expected), abs=1e-5)
    (single,) = llm.classify("the dog")
    expected = reference(model, [2, 8, 10, 3]).logits[0, 0].sigmoid()
    assert single.outputs.probs == pytest.approx([float(expected)], abs=1e-5)


def write(directory, name, content):
    path = directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def modules(directory, *kinds):
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for i, kind in enumerate(kinds, 1):
        path = f"{i}_{kind}"
        listed.append(
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        )
    write(directory, "modules.json", listed)


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "cls"}, "cls"),
        ({}, "mean"),
    ],
)
def test_modules_of_sentence_transformers_decide(config, pooling, bert):
    directory = bert[1]
    modules(directory, "Pooling")
    write(directory, "1_Pooling/config.json", config)
    write(directory, "sentence_bert_config.json", {"max_seq_length": 20})
    llm = LLM(str(directory))
    spec = llm._pooling_frontend.spec
    assert (spec.pooling, spec.normalize, llm.max_model_len) == (pooling, False, 20)
    modules(directory, "Pooling", "Normalize")
    assert LLM(str(directory), pooler="pooling=last")._pooling_frontend.spec.pooling == "last"
    assert LLM(str(directory))._pooling_frontend.spec.normalize


@pytest.mark.parametrize("kind", ["Dense", "LSTM"])
def test_modules_that_are_not_supported(kind, bert):
    directory = bert[1]
    modules(directory, "Pooling", kind)
    write(directory, "1_Pooling/config.json", {})
    write(directory, f"2_{kind}/config.json", {"in_features": 64, "out_features": 32})
    with pytest.raises(UnsupportedModel, match=f"module {kind} is not supported"):
        LLM(str(directory))


def test_poolings_that_are_not_supported(bert):
    directory = bert[1]
    modules(directory, "Pooling")
    write(directory, "1_Pooling/config.json", {"pooling_mode_max_tokens": True})
    with pytest.raises(UnsupportedModel, match="max"):
        LLM(str(directory))


def test_matryoshka(bert):
    directory = bert[1]
    config = json.loads((directory / "config.json").read_text())
    write(directory, "config.json", config | {"matryoshka_dimensions": [16, 32]})
    llm = LLM(str(directory))
    (output,) = llm.embed("the dog", pooling_params=PoolingParams(dimensions=16))
    assert output.outputs.embedding.shape == (16,)
    with pytest.raises(InvalidRequest, match="16, 32"):
        llm.embed("the dog", pooling_params=PoolingParams(dimensions=17))


def test_conversions_that_make_no_sense(bert, cross_encoder):
    with pytest.raises(ConfigError, match="does not generate"):
        LLM(str(bert[1]), convert="none")
    for wrong in ("pooling=max", "speed=fast", "normalize=maybe"):
        with pytest.raises(ConfigError, match="pooler"):
            LLM(str(bert[1]), pooler=wrong)


def test_a_model_that_generates(smollm2_gguf):
    llm = LLM(str(smollm2_gguf), max_model_len=64)
    with pytest.raises(InvalidRequest, match='convert="embed"'):
        llm.embed("x")
    with pytest.raises(ConfigError, match="pooler"):
        LLM(str(smollm2_gguf), pooler="pooling=mean")
    llm = LLM(str(smollm2_gguf), convert="embed", max_model_len=64)
    alike, other = llm.score(
        "The cat sat on the mat.", ["A cat is sitting on a mat.", "int main() { return 0; }"]
    )
    assert alike.outputs.score > other.outputs.score
