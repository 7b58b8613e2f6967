"""model.safetensors.index.json beside shards: which files are the checkpoint, and what is in them."""

from __future__ import annotations

import json

from fuzz import scratch
from tenon.errors import ModelFileError
from tenon.formats.safetensors import open_safetensors
from tenon.formats.shards import INDEX_NAME, find_shards
from tests.formats.safetensors_files import file, one

EXPECTED = (ModelFileError,)
DICTIONARY = [b'"weight_map"', b'"one.safetensors"', b'"two.safetensors"', b"../", b"/etc/passwd", b".bin"]
_DIRECTORY = scratch.directory("index")


def seeds() -> dict[str, bytes]:
    for name in ("one", "two"):
        scratch.write(_DIRECTORY / f"{name}.safetensors", file({name: one()}, bytes(8)))
    names = {
        "both": ["one.safetensors", "two.safetensors"],
        "up": ["../one.safetensors"],
        "absolute": ["/etc/passwd"],
        "pickle": ["pytorch_model.bin"],
        "gone": ["three.safetensors"],
        "dot": ["."],
        "nul": ["one\0.safetensors"],
        "long": ["x" * 5000 + ".safetensors"],
    }
    maps = {
        label: {f"t{i}" if i else "one": name for i, name in enumerate(files)}
        for label, files in names.items()
    }
    maps["right"] = {"one": "one.safetensors", "two": "two.safetensors"}
    return {label: json.dumps({"weight_map": each}).encode() for label, each in maps.items()} | {
        "no map": b"{}",
        "deep": b"[" * 5000,
        "map of lists": b'{"weight_map": {"a": ["one.safetensors"]}}',
        "no UTF-8": b'{"weight_map": {"a": "\xff.safetensors"}}',
        "surrogate": b'{"weight_map": {"a": "\\ud800.safetensors"}}',
    }


def run(data: bytes) -> None:
    scratch.write(_DIRECTORY / INDEX_NAME, data)
    shards = find_shards(_DIRECTORY)
    assert all(path.parent == _DIRECTORY and path.suffix == ".safetensors" for path in shards)
    open_safetensors(_DIRECTORY, shards)
