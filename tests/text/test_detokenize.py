"""Streams of text equal the decoded whole, for any cut of the tokens, and stop where they should."""

import random
import time

import pytest

from tenon.core.sampling import SamplingParams
from tenon.text.detokenize import Detokenizer
from tenon.text.from_gguf import from_metadata
from tests.text import vocabularies


@pytest.fixture(scope="module", params=["byte-level", "sentencepiece"])
def tokenizer(request):
    if request.param == "byte-level":
        return from_metadata(vocabularies.byte_level(random.Random(1))[1])
    processor, _ = vocabularies.sentence_piece(random.Random(1))
    return from_metadata(vocabularies.sentence_piece_metadata(processor))


def cuts(rng, ids):
    """The ids in random chunks, empty ones among them."""
    start = 0
    while start < len(ids):
        length = rng.choice([0, 1, 1, 2, 5, 50])
        yield ids[start : start + length]
        start += length


def stream(rng, tokenizer, ids, params=None, prompt=()):
    detokenizer = Detokenizer(tokenizer, prompt, params)
    text = "".join([detokenizer.push(part) for part in cuts(rng, ids)])
    return text + detokenizer.flush(), detokenizer


def random_ids(rng, tokenizer):
    """Half of the time any ids at all: broken characters, special tokens, ids that do not exist."""
    if rng.random() < 0.5:
        return tokenizer.encode(vocabularies.random_text(rng), add_special_tokens=False)
    return [rng.randrange(-2, tokenizer.vocab_size + 3) for _ in range(rng.randrange(60))]


def test_pieces_put_together_are_the_whole(seed, tokenizer):
    rng = random.Random(seed)
    for _ in range(400):
        ids, skip = random_ids(rng, tokenizer), rng.random() < 0.5
        text, detokenizer = stream(rng, tokenizer, ids, SamplingParams(skip_special_tokens=skip))
        assert text == tokenizer.decode(ids, skip_special_tokens=skip)
        assert detokenizer.num_tokens == len(ids)
        assert not detokenizer.stopped


def test_text_goes_on_where_the_prompt_ended(seed, tokenizer):
    rng = random.Random(seed)
    for _ in range(300):
        ids = tokenizer.encode("x" + vocabularies.random_text(rng, 12), add_special_tokens=False)
        cut = rng.randrange(1, len(ids) + 1)
        text, _ = stream(rng, tokenizer, ids[cut:], prompt=ids[:cut])
        whole, before = tokenizer.decode(ids), tokenizer.decode(ids[:cut]).rstrip("\ufffd")
        assert whole.startswith(before)
        assert whole[len(before) :].endswith(text)
        assert whole == before + text or before != tokenizer.decode(ids[:cut])


def test_a_character_is_given_out_when_it_is_complete(tokenizer):
    ids = tokenizer.encode("😀", add_special_tokens=False)
    detokenizer = Detokenizer(tokenizer)
    deltas = [detokenizer.push([token]) for token in ids]
    assert len(ids) >= 3
    assert deltas[-1] == "😀"
    assert "".join(deltas[:-1]).strip() == ""


def test_an_unfinished_character_ends_as_a_replacement(tokenizer):
    ids = tokenizer.encode("😀", add_special_tokens=False)[:-1]
    detokenizer = Detokenizer(tokenizer)
    assert detokenizer.push(ids).strip() == ""
    assert detokenizer.flush() == "\ufffd"


def expected_stop(text, stop):
    """By definition: the shortest beginning of the text that ends with a stop string."""
    for end in range(len(text) + 1):
        ending = [string for string in stop if text[:end].endswith(string)]
        if ending:
            string = max(ending, key=len)
            return end - len(string), string
    return None


@pytest.mark.parametrize("include", [False, True])
def test_stop_strings_across_tokens(seed, tokenizer, include):
    rng = random.Random(seed)
    stops = 0
    for _ in range(400):
        text = vocabularies.random_text(rng)
        ids = tokenizer.encode(text, add_special_tokens=False)
        text = tokenizer.decode(ids)
        stop = ["".join(rng.choices("ab the\n", k=rng.randint(1, 4)))]
        for _ in range(rng.randrange(3)):
            if text:
                start = rng.randrange(len(text))
                stop.append(text[start : start + rng.randint(1, 9)])
        got, detokenizer = stream(
            rng, tokenizer, ids, SamplingParams(stop=stop, include_stop_str_in_output=include)
        )
        found = expected_stop(text, stop)
        if found is None:
            assert (got, detokenizer.stop_reason) == (text, None)
            continue
        stops += 1
        start, string = found
        assert detokenizer.stop_reason == string
        assert got == text[: start + len(string) * include]
        count = detokenizer.num_tokens
        assert expected_stop(tokenizer.decode(ids[:count]), stop) == found
        assert expected_stop(Detokenizer(tokenizer).push(ids[: count - 1]), stop) is None
    assert stops


def test_no_more_is_held_back_than_a_stop_string_needs(tokenizer):
    detokenizer = Detokenizer(tokenizer, params=SamplingParams(stop=["abcd", "ce"]))
    given = []
    for letter in "xabcx cab":
        given.append(detokenizer.push(tokenizer.encode("x" + letter, add_special_tokens=False)[-1:]))
    assert given[:5] == ["x", "", "", "", "abcx"]
    assert detokenizer.flush() == "ab"


def test_stop_strings_wait_for_min_tokens(tokenizer):
    ids = tokenizer.encode("abababab", add_special_tokens=False)
    detokenizer = Detokenizer(tokenizer, params=SamplingParams(stop=["b"], min_tokens=len(ids) - 1))
    text = detokenizer.push(ids[:-1])
    assert not detokenizer.stopped
    assert text == tokenizer.decode(ids[:-1])


def test_tokens_after_the_stop_are_ignored(tokenizer):
    ids = tokenizer.encode("one two three", add_special_tokens=False)
    detokenizer = Detokenizer(tokenizer, params=SamplingParams(stop=[" two"]))
    assert detokenizer.push(ids) + detokenizer.push(ids) + detokenizer.flush() == "one"
    assert detokenizer.stopped


def test_time_per_token_does_not_grow(tokenizer):
    ids = tokenizer.encode("the model token " * 50, add_special_tokens=False)
    detokenizer = Detokenizer(tokenizer, params=SamplingParams(stop=["never so", "the other"]))
    times = []
    for _ in range(60):
        start = time.perf_counter()
        for token in ids:
            detokenizer.push([token])
        times.append(time.perf_counter() - start)
    assert min(times[-20:]) < 3 * min(times[:20])


def test_special_tokens_of_the_prompt_are_no_text(tokenizer):
    """They may stand in the middle of a character, of which the rest is still to come."""
    ids = tokenizer.encode("x\U0001f642", add_special_tokens=False)
    special = sorted(tokenizer.special_ids)
    _, detokenizer = stream(random.Random(1), tokenizer, ids[-1:], prompt=[*ids[:-1], *special])
    assert detokenizer.num_tokens == 1
    text, _ = stream(random.Random(1), tokenizer, ids[-1:], prompt=[*ids[:-1], *special])
    assert text == stream(random.Random(1), tokenizer, ids[-1:], prompt=ids[:-1])[0]
    assert text.endswith("\U0001f642")


def test_what_was_held_back_is_given_out_once(tokenizer):
    detokenizer = Detokenizer(tokenizer, params=SamplingParams(stop=["ab"]))
    assert detokenizer.push(tokenizer.encode("xa", add_special_tokens=False)).strip() == "x"
    assert [detokenizer.flush(), detokenizer.flush()] == ["a", ""]
