"""Character maps that would bring the native library down are refused before it sees them."""

import base64
import json
import struct
from pathlib import Path

import pytest

from tenon.errors import ModelFileError
from tenon.text import charsmap


@pytest.mark.parametrize(
    "data", [b"", b"123", struct.pack("<I", 8), struct.pack("<I", 2**32 - 4) + bytes(64)]
)
def test_a_trie_longer_than_the_map(data):
    with pytest.raises(ModelFileError, match="precompiled_charsmap is malformed"):
        charsmap.check(data)


def test_a_map():
    data = struct.pack("<I", 8) + bytes(8) + b"text\0"
    assert charsmap.check(data) is data


def normalizer(text: str) -> bytes:
    step = {"type": "Precompiled", "precompiled_charsmap": text}
    return json.dumps({"type": "Sequence", "normalizers": [{"type": "NFC"}, step]}).encode()


def test_inside_a_tokenizer():
    path = Path("tokenizer.json")
    charsmap.check_inside(path, b"null")
    charsmap.check_inside(
        path, b'{"type": "Precompiled", "precompiled_charsmap": 3}'
    )  # the library refuses it
    charsmap.check_inside(path, normalizer(base64.b64encode(struct.pack("<I", 0)).decode()))
    for wrong in (base64.b64encode(b"\xff" * 9).decode(), "=", "é", "AAAAA"):
        for text in (
            normalizer(wrong),
            normalizer(wrong).replace(b"recompiled", b"recompil\\u0065d"),
        ):
            with pytest.raises(ModelFileError, match=r"tokenizer\.json: precompiled_charsmap is malformed"):
                charsmap.check_inside(path, text)
