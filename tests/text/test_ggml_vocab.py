"""Vocabularies built from metadata give the ids of the encoders that trained them."""

import math
import random

import pytest

from tenon.errors import ModelFileError, UnsupportedModel
from tenon.text import ggml_vocab
from tenon.text.from_gguf import from_metadata
from tests.text import vocabularies


@pytest.mark.parametrize("prefix", [True, False])
def test_scores_give_sentencepiece_ids(seed, prefix):
    rng = random.Random(seed)
    reference, _ = vocabularies.sentence_piece(rng, add_dummy_prefix=prefix)
    metadata = vocabularies.sentence_piece_metadata(reference)
    tokenizer = from_metadata(metadata | {"tokenizer.ggml.add_space_prefix": prefix})
    for _ in range(500):
        text = vocabularies.random_text(rng)
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert ids == reference.encode(text), text
        assert tokenizer.decode(ids) == text


def test_sentencepiece_with_its_default_normalisation(seed):
    rng = random.Random(seed)
    reference, file = vocabularies.sentence_piece(
        rng, normalization_rule_name="nmt_nfkc", remove_extra_whitespaces=True
    )
    from tenon.text import sentence_piece

    tokenizer = from_metadata(sentence_piece.parse(file))
    for _ in range(200):
        text = " ".join(rng.choices([*vocabularies.WORDS, "ﬁne", "ｆｕｌｌ", "  ", "①"], k=8))
        assert tokenizer.encode(text, add_special_tokens=False) == reference.encode(text), text


def test_sentencepiece_without_byte_fallback_fuses_unknown_characters(seed):
    rng = random.Random(seed)
    reference, _ = vocabularies.sentence_piece(rng, byte_fallback=False)
    tokenizer = from_metadata(vocabularies.sentence_piece_metadata(reference))
    for text in ("\U00010400\U00010401 a", "a \U00010400"):
        assert tokenizer.encode(text, add_special_tokens=False) == reference.encode(text)


def test_merges_give_the_ids_of_the_trained_bpe(seed):
    rng = random.Random(seed)
    reference, metadata = vocabularies.byte_level(rng)
    tokenizer = from_metadata(metadata)
    for _ in range(500):
        text = vocabularies.random_text(rng)
        ids = tokenizer.encode(text)
        assert ids == reference.encode(text).ids, text
        assert tokenizer.decode(ids) == text


def test_pieces_with_merges_of_their_own(seed):
    rng = random.Random(seed)
    reference, metadata = vocabularies.merged_pieces(rng)
    tokenizer = from_metadata(metadata | {"tokenizer.ggml.add_bos_token": False})
    for text in ["", "\n\n\n\n", *(vocabularies.random_text(rng) for _ in range(200))]:
        ids = tokenizer.encode(text)
        assert ids == [1, *reference.encode(text).ids], text
        assert tokenizer.decode(ids[1:]) == reference.decode(ids[1:]) == text
    assert tokenizer.eos_token_ids == (0, 2, 3)
    assert tokenizer.encode("a<|tool_response>", parse_special=False)[-1] != 3


def test_user_defined_tokens_are_matched_first_and_are_text(seed):
    _, metadata = vocabularies.byte_level(random.Random(seed))
    count = len(metadata["tokenizer.ggml.tokens"])
    metadata["tokenizer.ggml.tokens"] += ["<think>", "    "]
    metadata["tokenizer.ggml.token_type"] += [4, 4]
    tokenizer = from_metadata(metadata)
    assert tokenizer.encode("<think>    ", parse_special=False) == [count, count + 1]
    assert tokenizer.decode([count, count + 1], skip_special_tokens=True) == "<think>    "
    assert count not in tokenizer.special_ids


def test_ends_are_added_as_the_file_says(seed):
    _, metadata = vocabularies.byte_level(random.Random(seed))
    plain = from_metadata(metadata).encode("a")
    flags = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}
    tokenizer = from_metadata(metadata | flags)
    assert tokenizer.encode("a") == [1, *plain, 2]
    assert tokenizer.encode("a", add_special_tokens=False) == plain
    assert from_metadata(metadata | {"tokenizer.ggml.pre": "llama-bpe"}).encode("a")[0] == 1


def test_end_tokens_beside_the_named_one(seed):
    _, metadata = vocabularies.byte_level(random.Random(seed))
    assert from_metadata(metadata).eos_token_ids == (2, 0)
    assert from_metadata(metadata | {"tokenizer.ggml.eot_token_id": 1}).eos_token_ids == (2, 1, 0)


PIECES = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ["<unk>", "a"],
    "tokenizer.ggml.scores": [0.0, 1.0],
    "tokenizer.ggml.token_type": [2, 1],
}


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"tokenizer.ggml.model": "t5"}, UnsupportedModel, "'t5'"),
        ({"tokenizer.ggml.model": None}, UnsupportedModel, "None"),
        ({"tokenizer.ggml.pre": "klingon"}, UnsupportedModel, "'klingon'"),
        ({"tokenizer.ggml.tokens": []}, ModelFileError, "vocabulary"),
        ({"tokenizer.ggml.tokens": ["a", 3]}, ModelFileError, "list of strings"),
        ({"tokenizer.ggml.tokens": ["a", "a"], "tokenizer.ggml.token_type": [1, 1]}, ModelFileError, "twice"),
        ({"tokenizer.ggml.token_type": [1]}, ModelFileError, "token_type"),
        ({"tokenizer.ggml.merges": ["ab"]}, ModelFileError, "'ab'"),
        ({"tokenizer.ggml.merges": ["never seen"]}, ModelFileError, "does not fit"),
        ({"tokenizer.ggml.add_bos_token": 3}, ModelFileError, "add_bos_token"),
        ({"tokenizer.ggml.bos_token_id": 10**6}, ModelFileError, "bos_token_id"),
        ({"tokenizer.ggml.eos_token_id": "x"}, ModelFileError, "eos_token_id"),
        ({"tokenizer.chat_template": 5}, ModelFileError, "chat_template"),
        ({"tokenizer.ggml.token_type": "x"}, ModelFileError, "token_type must be a list of numbers"),
        ({"tokenizer.ggml.token_type": ["x"]}, ModelFileError, "token_type must be a list of numbers"),
        ({"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": 3}, ModelFileError, "list of numbers"),
        ({**PIECES, "tokenizer.ggml.scores": [0.0, math.nan]}, ModelFileError, "scores"),
        ({**PIECES, "tokenizer.ggml.tokens": ["<unk>", "a" * 513]}, ModelFileError, "513 characters"),
        ({**PIECES, "tokenizer.ggml.precompiled_charsmap": [-1] * 9}, ModelFileError, "charsmap"),
        ({**PIECES, "tokenizer.ggml.precompiled_charsmap": 3}, ModelFileError, "charsmap"),
        ({"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": None}, ModelFileError, "scores"),
        ({"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": [0.0]}, ModelFileError, "scores"),
    ],
)
def test_malformed_metadata_is_a_typed_error(seed, change, error, says):
    _, metadata = vocabularies.byte_level(random.Random(seed), vocab_size=300)
    with pytest.raises(error, match=says):
        from_metadata(metadata | change)


def test_merges_rank_by_score():
    tokens = ["a", "b", "c", "bc", "ab", "abc"]
    merges = ggml_vocab.merges_from_scores(tokens, [0, 0, 0, -2, -1, -3], [1] * 6)
    assert merges == [("a", "b"), ("b", "c"), ("a", "bc"), ("ab", "c")]
