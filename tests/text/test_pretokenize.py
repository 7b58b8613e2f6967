"""Splitting rules against those that `transformers` publishes, and on texts whose splits are known."""

import random

import pytest
from tokenizers import Regex, pre_tokenizers

from tenon.errors import UnsupportedModel
from tenon.text import pretokenize
from tenon.text.pretokenize import pre_tokenizer
from tests.text import vocabularies

NAMES = sorted(pretokenize._RULE_OF)


def words(name: str, text: str) -> list[str]:
    return [text[start:end] for _, (start, end) in pre_tokenizer(name).splitter.pre_tokenize_str(text)]


@pytest.mark.parametrize("name", ["gpt-2", "qwen2", "qwen35", "llama-bpe"])
def test_rules_equal_those_of_transformers(seed, name):
    if name == "gpt-2":
        reference = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        if name == "qwen2":
            from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX as pattern
        elif name == "qwen35":
            from transformers.models.qwen3_5.tokenization_qwen3_5 import PRETOKENIZE_REGEX as pattern
        else:
            from transformers.convert_slow_tokenizer import TikTokenConverter

            pattern = TikTokenConverter(vocab_file="none").pattern
        reference = pre_tokenizers.Split(Regex(pattern), "isolated")
    rng = random.Random(seed)
    for _ in range(300):
        text = vocabularies.random_text(rng)
        expected = [text[start:end] for _, (start, end) in reference.pre_tokenize_str(text)]
        assert words(name, text) == expected, text


@pytest.mark.parametrize("name", NAMES)
def test_no_text_is_lost(seed, name):
    rng = random.Random(seed)
    for _ in range(50):
        text = vocabularies.random_text(rng)
        assert b"".join(word.encode() for word in words(name, text)) == text.encode()


KNOWN = {
    "smollm": ("in 1234 a's", ["in", " ", "1", "2", "3", "4", " a", "'s"]),
    "gpt-2": ("in 1234  it'll", ["in", " 1234", " ", " it", "'ll"]),
    "llama-bpe": ("is 12345\n\n It'S", ["is", " ", "123", "45", "\n\n", " It", "'S"]),
    "qwen2": ("a 123 (b)\n", ["a", " ", "1", "2", "3", " (", "b", ")\n"]),
    "gpt-4o": ("helloWorld's 1234", ["hello", "World's", " ", "123", "4"]),
    "tekken": ("helloWorld 12", ["hello", "World", " ", "1", "2"]),
    "deepseek-v3": ("1234 中文ab", ["123", "4", " ", "中文", "ab"]),
    "deepseek-coder": ("a 中文 12\n", ["a", " ", "中文", " ", "1", "2", "\n"]),
    "falcon": ("a+1234", ["a", "+", "123", "4"]),
    "default": ("a+1234", ["a", "+", "123", "4"]),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_splits(name):
    text, expected = KNOWN[name]
    assert words(name, text) == expected


def test_composed_form_only_where_the_vocabulary_wants_it():
    assert pre_tokenizer("qwen2").normalizer.normalize_str("e\u0301") == "é"
    assert pre_tokenizer("stablelm2").normalizer is None


def test_an_unknown_rule_is_named():
    with pytest.raises(UnsupportedModel, match=r"'klingon'.*smollm"):
        pre_tokenizer("klingon")
