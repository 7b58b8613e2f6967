"""GGUF files: header, metadata, tensors and their values."""

from __future__ import annotations

import struct

from fuzz import scratch
from fuzz.mutate import MAX_BYTES
from tenon.core import ggml
from tenon.errors import ModelFileError
from tenon.formats.gguf import TENSOR_TYPES, GGUFFile
from tests.formats.gguf_files import ARRAY, F32, MALFORMED, ONE, STRING, U32, entry, file, tensor, text

EXPECTED = (ModelFileError,)
DICTIONARY = [b"GGUF", b"general.alignment", *(struct.pack("<I", n) for n in range(16))]
_PATH = scratch.directory("gguf") / "model.gguf"


def seeds() -> dict[str, bytes]:
    strings = struct.pack("<IQ", STRING, 3) + text("abc") + text("") + text("z")
    numbers = struct.pack("<IQ", F32, 2) + bytes(8)
    entries = [entry("k", ARRAY, strings), entry("n", ARRAY, numbers), entry("s", STRING, text("v"))]
    aligned = [entry("general.alignment", U32, struct.pack("<I", 64))]
    good = {
        "metadata": file(entries),
        "two tensors": file(entries, [tensor("t", [8, 4]), tensor("u", [32], 0, 128)], ONE * 2),
        "aligned": file(aligned, [tensor("t", [32])], ONE, alignment=64),
    }
    for number, name in TENSOR_TYPES.items():
        if name in ggml.BLOCKS:
            data = bytes(ggml.num_bytes(name, (1, 256)))
            good[f"type {name}"] = file([], [tensor("t", [256, 1], number)], data)
    return good | {label: data for label, data in MALFORMED.items() if len(data) < MAX_BYTES}


def run(data: bytes) -> None:
    opened = GGUFFile(scratch.write(_PATH, data))
    for key in opened.metadata:
        opened.metadata[key]
        opened.metadata.encoded(key)
    for info in opened.tensors.values():
        assert info.raw().dequantize().shape == info.shape
