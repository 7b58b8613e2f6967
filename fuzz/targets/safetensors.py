"""safetensors files: header, tensors and their values."""

from __future__ import annotations

from fuzz import scratch
from fuzz.mutate import MAX_BYTES
from tenon.core import ggml
from tenon.errors import ModelFileError
from tenon.formats.safetensors import SafetensorsFile
from tests.formats.safetensors_files import MALFORMED, file, one

EXPECTED = (ModelFileError,)
DICTIONARY = [b'"dtype"', b'"shape"', b'"data_offsets"', b'"__metadata__"', b'"F32"', b'"BF16"', b'"F8_E4M3"']
_PATH = scratch.directory("safetensors") / "model.safetensors"


def seeds() -> dict[str, bytes]:
    good = {
        "one": file({"a": one()}, bytes(8)),
        "metadata": file({"__metadata__": {"format": "pt"}, "a": one()}, bytes(8)),
        "three": file(
            {"a": one(), "b": one("BF16", (2, 2), (8, 16)), "c": one("I64", (), (16, 24))}, bytes(24)
        ),
        "empty": file({"a": one(shape=(0,), offsets=(0, 0))}),
    }
    return good | {label: data for label, data in MALFORMED.items() if len(data) < MAX_BYTES}


def run(data: bytes) -> None:
    opened = SafetensorsFile(scratch.write(_PATH, data))
    for info in opened.tensors.values():
        if info.dtype in ggml.BLOCKS and info.shape:
            assert info.raw().dequantize().shape == info.shape
