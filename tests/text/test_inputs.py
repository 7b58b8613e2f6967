"""Inputs of encoders: special tokens, pairs and truncation, against what `tokenizers` does itself."""

import random

import pytest
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from tenon.errors import InvalidRequest
from tenon.text.tokenizer import Tokenizer

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "play",
    "##ing",
    "##ed",
    "walk",
    "the",
    "a",
    "dog",
    "##s",
    ",",
    ".",
]


def word_piece() -> FastTokenizer:
    fast = FastTokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer(lowercase=True)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.decoder = decoders.WordPiece()
    fast.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast.add_special_tokens(WORDS[:4])
    return fast


def random_text(rng, most=12):
    return " ".join(
        rng.choice(["playing", "Walked", "the", "dogs", ",", "zebra"]) for _ in range(rng.randint(0, most))
    )


def test_one_text_and_pairs(seed):
    rng = random.Random(seed)
    tokenizer, fast = Tokenizer(word_piece()), word_piece()
    for _ in range(50):
        first, second = random_text(rng), random_text(rng)
        assert tokenizer.encode_input(first) == (fast.encode(first).ids, [])
        whole = fast.encode(first, second)
        assert tokenizer.encode_input(first, second) == (whole.ids, whole.type_ids)
        assert (
            tokenizer.encode_input(first, add_special_tokens=False)[0]
            == fast.encode(first, add_special_tokens=False).ids
        )


def test_the_longest_is_cut_first_and_special_tokens_stay(seed):
    rng = random.Random(seed)
    tokenizer, fast = Tokenizer(word_piece()), word_piece()
    for _ in range(200):
        limit = rng.randint(3, 20)
        first, second = random_text(rng), random_text(rng)
        fast.enable_truncation(limit)
        assert tokenizer.encode_input(first, limit=limit)[0] == fast.encode(first).ids
        whole = fast.encode(first, second)
        assert tokenizer.encode_input(first, second, limit=limit) == (whole.ids, whole.type_ids)


def test_ends_that_the_configuration_adds(seed):
    fast = word_piece()
    tokenizer = Tokenizer(fast, bos_token_id=2, eos_token_ids=[3], add_bos=True, add_eos=True)
    assert tokenizer.encode_input("the dogs", limit=4)[0] == [2, 8, 10, 3]
    assert tokenizer.encode_input("the", "dogs")[0] == [2, 8, 10, 11, 3]


def test_text_that_is_not_unicode():
    with pytest.raises(InvalidRequest, match="Unicode"):
        Tokenizer(word_piece()).encode_input("a", "\ud800")


def test_word_pieces_spell_words():
    tokenizer = Tokenizer(word_piece())
    ids = tokenizer.encode("Playing the dogs.")
    assert tokenizer.decode(ids) == "playing the dogs ."
    assert [tokenizer.token_text(i) for i in (4, 5)] == [" play", "ing"]
