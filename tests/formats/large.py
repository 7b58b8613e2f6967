"""Files whose size is what is wrong with them: headers full of whatever takes most to read."""

from __future__ import annotations

import json
import struct

from tests.formats import gguf_files, safetensors_files
from tests.formats.gguf_files import ARRAY, STRING, entry, tensor, text

MiB = 1 << 20


def files(name: str) -> dict[str, bytes]:
    """For a target of fuzz/targets."""
    return {"gguf": _gguf, "safetensors": _safetensors, "safetensors_index": _index}.get(name, dict)()


def _gguf() -> dict[str, bytes]:
    empty = struct.pack("<Q", 0)
    million = 1 << 20
    return {
        "strings": gguf_files.file(
            [entry("k", ARRAY, struct.pack("<IQ", STRING, million) + empty * million)]
        ),
        "bytes": gguf_files.file(
            [entry("k", ARRAY, struct.pack("<IQ", 0, 4 * million) + bytes(4 * million))]
        ),
        "doubles": gguf_files.file([entry("k", ARRAY, struct.pack("<IQ", 12, million) + bytes(8 * million))]),
        "entries": gguf_files.file([entry(f"{i}", 0, b"1") for i in range(1 << 16)]),
        "tensors": gguf_files.file([], [tensor(f"{i}", [1], 0, 32 * i) for i in range(1 << 15)], bytes(MiB)),
        "one long string": gguf_files.file([entry("k", STRING, text("x" * (8 * MiB)))]),
        "names": gguf_files.file([entry(f"{i}".rjust(65000), 0, b"1") for i in range(200)]),
    }


def _safetensors() -> dict[str, bytes]:
    def header(unit: str, count: int, last: str = "") -> bytes:
        return safetensors_files.file(("{" + ",".join(unit % i for i in range(count)) + last + "}").encode())

    one = '"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return {
        "tensors": header(one, 1 << 16),
        "more tensors": header(one, 200_000),
        "no tensors": header('"%d":{}', 1_000_000),
        "the last name twice": header(one, 60_000, ',"7":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'),
        "long name": safetensors_files.file({"x" * (15 * MiB): safetensors_files.one()}, bytes(8)),
        "dimensions": safetensors_files.file({"a": safetensors_files.one(shape=[1] * 5_000_000)}, bytes(8)),
        "brackets": safetensors_files.file(b'{"__metadata__":' + b"[" * (15 * MiB)),
        "metadata": safetensors_files.file({"__metadata__": {str(i): "" for i in range(900_000)}}),
    }


def _index() -> dict[str, bytes]:
    names = {f"t{i}": f"{i}.safetensors" for i in range(300_000)}
    return {
        "files": json.dumps({"weight_map": names}).encode(),
        "brackets": b'{"metadata":' + b"[" * (15 * MiB),
        "objects": b'{"metadata":[' + b"{}," * (5 * MiB) + b'{}],"weight_map":{}}',
        "too large": b" " * (17 * MiB),
    }
