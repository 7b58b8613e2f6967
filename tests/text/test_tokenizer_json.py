"""What would take the native library seconds, or all memory, never reaches it."""

import json

import pytest
from tokenizers import Tokenizer as FastTokenizer

from tenon.errors import ModelFileError
from tenon.text import from_hf, tokenizer_json

LIMITS = {
    "tokens": ("MAX_ENTRIES", "tokens and merges"),
    "pieces": ("MAX_ENTRIES", "tokens and merges"),
    "merges": ("MAX_ENTRIES", "tokens and merges"),
    "added": ("MAX_ADDED", "added tokens"),
    "text of added": ("MAX_ADDED_TEXT", "characters of added tokens"),
}


def model(**parts):
    return {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]} | parts


def added(*texts):
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    return [{"id": 3 + i, "content": text} | flags for i, text in enumerate(texts)]


def file(**parts):
    return json.dumps({"version": "1.0", "added_tokens": [], "model": model()} | parts)


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Reads a tokenizer.json; with `refused`, one that the native library must not be given."""

    def from_buffer(data):
        raise AssertionError("the native library was reached")

    def read(text, refused=None):
        path = tmp_path / "tokenizer.json"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with monkeypatch.context() as patch:
            if refused is None:
                return from_hf._fast(path)
            patch.setattr(FastTokenizer, "from_buffer", from_buffer)
            with pytest.raises(ModelFileError, match=refused) as caught:
                from_hf._fast(path)
            assert str(path) in str(caught.value)

    return read


def with_count(what, count):
    """A file with so many of `what`."""
    return {
        "tokens": lambda: file(model=model(vocab={f"{i}": i for i in range(count)}, merges=[])),
        "pieces": lambda: file(model={"type": "Unigram", "vocab": [[f"{i}", -1] for i in range(count)]}),
        "merges": lambda: file(model=model(merges=["a b"] * (count - 3))),
        "added": lambda: file(added_tokens=added(*(f"<{i}>" for i in range(count)))),
        "text of added": lambda: file(added_tokens=added("x" * (count - 3), "<b>")),
    }[what]()


@pytest.mark.parametrize("what", LIMITS)
def test_counts_are_bounded(read, monkeypatch, what):
    name, words = LIMITS[what]
    monkeypatch.setattr(tokenizer_json, name, 21)
    read(with_count(what, 21))
    read(with_count(what, 23), refused=f"23 {words}; at most 21")


def test_strings_are_counted_before_they_are_decoded(read, monkeypatch):
    """Two for a merge: what is malformed after too many of them is not looked at."""
    monkeypatch.setattr(tokenizer_json, "MAX_ENTRIES", 10)
    merges = [["a", "b"]] * 8
    read(file(model=model(merges=[*merges, 3])), refused="malformed")  # 3 tokens, 16 strings
    read(file(model=model(merges=[*merges, "a b", "a b", 3])), refused="21 strings")


def test_everything_else_is_small(read, monkeypatch):
    size = len(file(added_tokens=added("<a>")))
    part = len(json.dumps(added("<a>")))
    large = len(json.dumps(model()["vocab"])) + len(json.dumps(model()["merges"]))
    monkeypatch.setattr(tokenizer_json, "MAX_REST_BYTES", size - part - large)
    read(file(added_tokens=added("<a>")))
    words = "bytes beside vocabulary, merges and added tokens"
    read(file(added_tokens=added("<a>")) + " ", refused=words)
    read(file(x=0), refused=words)
    twice = file().replace(
        '"merges": ["a b"]', '"merges": ["a a", "a a", "a a", "a a", "a a"], "merges": ["a b"]'
    )
    read(twice, refused=words)
    monkeypatch.setattr(tokenizer_json, "MAX_REST_BYTES", size)
    monkeypatch.setattr(tokenizer_json, "MAX_ADDED_BYTES", part)
    read(file(added_tokens=added("<a>")))
    read(file(added_tokens=added("<ab>")), refused=f"{part + 1} bytes of added tokens")


@pytest.mark.parametrize(
    "parts",
    [
        {"model": None},
        {"model": {"type": "BPE", "merges": []}},
        {"model": model(vocab={"a": "0"})},
        {"model": model(vocab={"a": -1})},
        {"model": model(vocab={"a": 2**32})},
        {"model": model(vocab=[["a"]])},
        {"model": model(vocab=[["a", "b"]])},
        {"model": model(merges=[["a"]])},
        {"model": model(merges=[["a", "b", "c"]])},
        {"added_tokens": [{"id": 3}]},
        {"added_tokens": [{"id": 2**32, "content": "x"}]},
        {"added_tokens": None},
    ],
    ids=str,
)
def test_parts_of_other_types(read, parts):
    read(file(**parts), refused="malformed")


def test_a_part_that_is_there_twice_is_read_once(read):
    """The library would read both, and only one was checked."""
    map_ = '{"type": "Precompiled", "precompiled_charsmap": "/P///wAAAAA="}'
    text = file(normalizer=None)
    assert read(text.replace('"normalizer"', f'"normalizer": {map_}, "normalizer"')).normalizer is None
    read(text.replace('"normalizer": null', f'"normalizer": null, "normalizer": {map_}'), refused="charsmap")
