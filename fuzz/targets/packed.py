"""Packed models: the head and the table of `model.tenon`.

An input is the table's text; one that begins with NUL has the head first, and damages that.
"""

from __future__ import annotations

import functools
import struct

from fuzz import scratch, tiny_models
from tenon.core.files import ModelFiles
from tenon.errors import ConfigError, ModelFileError
from tenon.formats.packed import FILE_NAME, MAGIC, VERSION
from tenon.models import load_model, pack_model

EXPECTED = (ModelFileError, ConfigError)
DICTIONARY = [
    b'"offset"',
    b'"length"',
    b'"columns"',
    b'"parts"',
    b'"bf16"',
    b'"s8_d16"',
    b'"f32"',
    b'"shape"',
]
_HEAD = 40


@functools.cache
def _made() -> tuple[ModelFiles, bytes, int]:
    """A packed model, its file, and where its table begins."""
    directory = tiny_models.directory("llama")
    source = ModelFiles("hf", (directory / "model.safetensors",), "m", directory)
    out = pack_model(source, scratch.directory("packed") / "model")
    path = out / FILE_NAME
    data = path.read_bytes()
    (start,) = struct.unpack_from("<Q", data, 16)
    return ModelFiles("packed", (path,), "m", out), data, start


def seeds() -> dict[str, bytes]:
    _, data, start = _made()
    table = data[start:]
    return {
        "table": table,
        "head": b"\0" + data[:_HEAD] + table,
        "float32": table.replace(b'"bfloat16"', b'"float32"'),
        "gguf": table.replace(b'"kind":"hf"', b'"kind":"gguf"'),
    }


def run(data: bytes) -> None:
    files, whole, start = _made()
    if data[:1] == b"\0":
        head, table = data[1 : 1 + _HEAD].ljust(_HEAD, b"\0"), data[1 + _HEAD :]
    else:
        head = struct.pack("<8sIIQQQ", MAGIC, VERSION, 0, start, len(data), start + len(data))
        table = data
    scratch.write(files.paths[0], head + whole[_HEAD:start] + table)
    load_model(files)
