"""A directory's tokenizer.json and tokenizer_config.json (separated by NUL), to text and back."""

from __future__ import annotations

import json
from typing import Any

from fuzz import scratch
from tenon.errors import InvalidRequest, ModelFileError
from tenon.text.from_hf import from_directory

EXPECTED = (ModelFileError, InvalidRequest)
_DIRECTORY = scratch.directory("tokenizer")
_WORDS = "version truncation padding added_tokens normalizer pre_tokenizer post_processor decoder model type"
_WORDS += " BPE WordPiece Unigram WordLevel vocab merges ByteLevel Metaspace Sequence Replace ByteFallback"
_WORDS += " Precompiled precompiled_charsmap Regex String Split Lowercase NFC TemplateProcessing unk_token"
_WORDS += " chat_template bos_token eos_token content add_bos_token"
DICTIONARY = [f'"{word}"'.encode() for word in _WORDS.split()] + [b'{"Regex":"(a+)+$"}']


def seeds() -> dict[str, bytes]:
    letters = {letter: i for i, letter in enumerate("abcdefgh\u0120")}
    bpe = {"type": "BPE", "vocab": letters | {"ab": 9}, "merges": ["a b"]}
    pieces = {"type": "BPE", "vocab": {"<unk>": 0, "\u2581": 1, "a": 2, "<0x0A>": 3}, "merges": []}
    words = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    words |= {"max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "a": 1, "##b": 2, "[SEP]": 3}}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    spaces = [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}]
    special = {"id": 9, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False}
    special |= {"normalized": False, "special": True}
    unigram = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]]}
    split = {"type": "Split", "pattern": {"Regex": "(a|b)+"}, "behavior": "Isolated", "invert": False}
    config = {"bos_token": "<s>", "eos_token": {"content": "<s>"}, "chat_template": "{{ messages }}"}
    return {
        "byte level": _file(bpe, byte_level, pre_tokenizer=byte_level, added_tokens=[special]),
        "with config": _file(bpe, byte_level) + b"\0" + json.dumps(config).encode(),
        "pieces": _file(pieces, {"type": "Sequence", "decoders": spaces}),
        "words": _file(words, {"type": "WordPiece", "prefix": "##", "cleanup": True}),
        "unigram": _file(unigram, None, pre_tokenizer=split),
        "prefix longer than a merge": _file(bpe | {"continuing_subword_prefix": "####"}, byte_level),
        "charsmap of 4 GiB": _file(
            bpe, byte_level, normalizer={"type": "Precompiled", "precompiled_charsmap": "/P///wAAAAA="}
        ),
        "merge of nothing": _file(bpe | {"merges": ["x y"]}, byte_level),
        "id 2^32": _file(bpe | {"vocab": letters | {"x": 2**32 - 1}}, byte_level),
        "added id": _file(bpe, byte_level, added_tokens=[special | {"id": 2**32 - 1}]),
        "deep": b'{"a":' * 3000,
        "config no object": _file(bpe, byte_level) + b"\0[1]",
        "config deep": _file(bpe, byte_level) + b"\0" + b"[" * 5000,
        "templates": _file(bpe, byte_level) + b'\0{"chat_template": [{"name": [], "template": 3}]}',
        "template a number": _file(bpe, byte_level) + b'\0{"chat_template": 3}',
    }


def _file(model: dict[str, Any], decoder: Any, **parts: Any) -> bytes:
    nothing = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None}
    nothing |= {"pre_tokenizer": None, "post_processor": None}
    return json.dumps(nothing | {"decoder": decoder, "model": model} | parts).encode()


def run(data: bytes) -> None:
    text, _, config = data.partition(b"\0")
    scratch.write(_DIRECTORY / "tokenizer.json", text)
    path = _DIRECTORY / "tokenizer_config.json"
    if config:
        scratch.write(path, config)
    else:
        path.unlink(missing_ok=True)
    tokenizer = from_directory(_DIRECTORY)
    ids = tokenizer.encode("ab <s> é\n aab")
    assert isinstance(tokenizer.decode(ids), str)
    tokenizer.encode_input("a", "b", limit=4)
    assert all(isinstance(template, str) for template in tokenizer.chat_templates.values())
