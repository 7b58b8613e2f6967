"""The tokenizer of the real model, and what holds for every tokenizer."""

import random
import threading

import psutil
import pytest
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models

from tenon.core.files import ModelFiles
from tenon.errors import InvalidRequest, UnsupportedModel
from tenon.text.detokenize import Detokenizer
from tenon.text.from_gguf import from_metadata
from tenon.text.load import load_tokenizer
from tenon.text.tokenizer import REMEMBERED_WORDS, Tokenizer
from tests.text import vocabularies


@pytest.fixture(scope="module")
def smollm(smollm2_gguf):
    return load_tokenizer(ModelFiles("gguf", (smollm2_gguf,), "smollm2", smollm2_gguf.parent))


# Ids that other engines give for the same vocabulary.
KNOWN = {
    "Hello, we can use": [19556, 28, 392, 416, 722],
    "The capital of France is": [504, 3575, 282, 4649, 314],
    "\n": [198],
    "Hello world! 123": [19556, 905, 17, 216, 33, 34, 35],
    "Café déjà vu.": [51, 1939, 2756, 32564, 90, 16739, 386, 101, 30],
    "  multiple   spaces": [216, 2701, 256, 5600],
}


@pytest.mark.parametrize("text", KNOWN)
def test_known_ids(smollm, text):
    assert smollm.encode(text) == KNOWN[text]


def test_facts_of_the_real_model(smollm):
    assert smollm.vocab_size == 49152
    assert smollm.bos_token_id == 1
    assert smollm.bos_token == "<|im_start|>"
    assert smollm.eos_token == "<|im_end|>"
    assert smollm.eos_token_ids == (2, 0)
    assert smollm.special_ids == frozenset(range(17))
    assert smollm.token_to_id("<|im_end|>") == 2
    assert "<|im_start|>" in smollm.chat_template


def test_any_text_survives(smollm, seed):
    # This vocabulary has no token for some bytes, which only rare characters (or none) need: those are lost.
    single = {smollm.token_bytes(token) for token in range(smollm.vocab_size)}
    missing = {byte for byte in range(256) if bytes([byte]) not in single}
    rng = random.Random(seed)
    for _ in range(500):
        text = "".join(c for c in vocabularies.random_text(rng) if missing.isdisjoint(c.encode()))
        ids = smollm.encode(text, parse_special=False)
        assert smollm.decode(ids) == text
        assert smollm.decode(ids, skip_special_tokens=False) == text
        assert b"".join(map(smollm.token_bytes, ids)) == text.encode()
        detokenizer = Detokenizer(smollm)
        assert "".join([*(detokenizer.push([token]) for token in ids), detokenizer.flush()]) == text


def test_every_token_of_the_real_model_can_be_spelled(smollm):
    assert all(smollm.token_bytes(token) for token in range(smollm.vocab_size))
    assert smollm.token_text(19556) == "Hello"
    assert smollm.token_text(905) == " world"


def test_special_tokens_in_text_are_text_unless_asked_for(smollm):
    text = "<|im_start|>user\n<|im_end|>"
    assert smollm.encode(text) == [1, 4093, 198, 2]
    ids = smollm.encode(text, parse_special=False)
    assert not smollm.special_ids & set(ids)
    assert smollm.decode(ids) == text
    assert smollm.encode(text) == [1, 4093, 198, 2]  # the two ways do not disturb each other
    assert smollm.decode([1, 4093, 198, 2]) == "user\n"
    assert smollm.decode([1, 4093, 198, 2], skip_special_tokens=False) == text


def test_ids_that_do_not_exist_are_no_text(smollm):
    assert smollm.decode([-1, 49152, 10**9]) == ""
    assert smollm.token_text(10**9) == ""


def test_text_that_is_not_unicode_is_refused(smollm):
    with pytest.raises(InvalidRequest, match="Unicode"):
        smollm.encode("a \ud800")


def test_threads_may_share_it(smollm, seed):
    rng = random.Random(seed)
    texts = [vocabularies.random_text(rng) + "<|im_end|>" for _ in range(40)]
    expected = [(smollm.encode(text), smollm.encode(text, parse_special=False)) for text in texts]
    got = {}

    def work(worker):
        got[worker] = [(smollm.encode(text), smollm.encode(text, parse_special=False)) for text in texts]

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(result == expected for result in got.values())
    assert len(got) == 4


def test_sentencepiece_text_loses_only_the_encoders_space(seed):
    processor, _ = vocabularies.sentence_piece(random.Random(seed))
    tokenizer = from_metadata(vocabularies.sentence_piece_metadata(processor))
    ids = tokenizer.encode(" the")
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids) == " the"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<s>  the"
    assert tokenizer.token_text(processor.piece_to_id("▁the")) == " the"
    assert tokenizer.token_bytes(processor.piece_to_id("<0xE2>")) == b"\xe2"


def test_a_decoder_that_is_not_known_is_named():
    fast = FastTokenizer(models.BPE())
    for decoder in (decoders.CTC(), decoders.Sequence([decoders.Replace("x", " "), decoders.Fuse()])):
        fast.decoder = decoder
        with pytest.raises(UnsupportedModel, match=r"CTC|Replace\+Fuse"):
            Tokenizer(fast)


@pytest.mark.parametrize("parse_special", [True, False])
@pytest.mark.parametrize(
    "model",
    [
        models.BPE(vocab={letter: i for i, letter in enumerate("abcdefgh")}, merges=[]),
        models.Unigram([(letter, -1.0) for letter in "abcdefgh<"], 8),
    ],
    ids=["bpe", "unigram"],
)
def test_words_that_a_client_makes_up_are_not_kept_without_end(model, parse_special, seed):
    """Each takes some KiB in the library's cache, which is of 10,000 unless it is told."""
    rng, process = random.Random(seed), psutil.Process()
    fast = FastTokenizer(model)
    fast.decoder = decoders.ByteLevel()
    tokenizer = Tokenizer(fast)

    def encode(count: int) -> None:
        for _ in range(count):
            tokenizer.encode("".join(rng.choices("abcdefgh", k=250)), parse_special=parse_special)

    encode(REMEMBERED_WORDS + 100)
    before = process.memory_info().rss
    encode(1500)
    assert process.memory_info().rss - before < 4 << 20
