"""The tokenizer of a GGUF file's metadata: any values, of any type, under the keys that it is made of."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from tenon.errors import InvalidRequest, ModelFileError
from tenon.text.from_gguf import from_metadata


class NotAnInput(Exception):
    """No metadata at all."""


EXPECTED = (ModelFileError, InvalidRequest, NotAnInput)
_KEYS = "model pre tokens token_type scores merges bos_token_id eos_token_id add_bos_token add_space_prefix"
_KEYS += " precompiled_charsmap remove_extra_whitespaces"
DICTIONARY = [f'"tokenizer.ggml.{key}"'.encode() for key in _KEYS.split()]
DICTIONARY += [b'"gpt2"', b'"llama"', b'"tokenizer.chat_template"', b'"tokenizer.chat_template.x"']


def seeds() -> dict[str, bytes]:
    gpt2: dict[str, Any] = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": ["<eos>", "a", "b", "ab", "\u0120"],
        "token_type": [3, 1, 1, 1, 1],
        "merges": ["a b"],
        "eos_token_id": 0,
        "add_bos_token": False,
    }
    llama: dict[str, Any] = {
        "model": "llama",
        "tokens": ["<unk>", "<s>", "\u2581", "a", "\u2581a", "<0x0A>"],
        "scores": [0.0, 0.0, -1.0, -2.0, -3.0, 0.0],
        "token_type": [2, 3, 1, 1, 1, 6],
        "bos_token_id": 1,
    }
    found = {"gpt2": gpt2, "llama": llama}
    for name, whole in (("gpt2", gpt2), ("llama", llama)):
        for key in whole:
            for wrong in (None, -1, 2**40, "x", [], [None], [1.5], ["a", "a"], True, {}):
                found[f"{name} {key} {wrong}"] = whole | {key: wrong}
    return {label: _encoded(values) for label, values in found.items()} | {
        "template": json.dumps({"tokenizer.chat_template": 3}).encode()
    }


def _encoded(values: dict[str, Any]) -> bytes:
    given = {f"tokenizer.ggml.{key}": value for key, value in values.items() if value is not None}
    return json.dumps(given | {"tokenizer.chat_template": "{{ x }}"}).encode()


def run(data: bytes) -> None:
    try:
        metadata = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NotAnInput from None
    for value in metadata.values():  # what metadata can hold
        inside = value if isinstance(value, list) else [value]
        if any(v is None or isinstance(v, list | dict) for v in inside) or len({type(v) for v in inside}) > 1:
            raise NotAnInput
    tokenizer = from_metadata(metadata)
    assert isinstance(tokenizer.decode(tokenizer.encode("ab a\n\u00e9")), str)
