"""Files whose size is what is wrong with them: headers full of whatever takes most to read."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

from tests.formats import gguf_files, safetensors_files
from tests.formats.gguf_files import ARRAY, STRING, entry, tensor, text

MiB = 1 << 20


def files(name: str) -> Iterator[tuple[str, bytes]]:
    """For a target of fuzz/targets, one after the other: together they would fill the memory that is meant
    for reading them."""
    makers = {"gguf": _gguf, "safetensors": _safetensors, "safetensors_index": _index}
    if name == "tokenizer_json":
        yield from _tokenizer()
    elif name in makers:
        yield from makers[name]().items()


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


def _tokenizer() -> Iterator[tuple[str, bytes]]:
    """Refused after they were counted, but for the last four, which are as large as the limits let the native
    library have them, and have their mistake at the end."""

    def file(vocab: str, merges: str = "", added: str = "", normalizer: str = "null") -> bytes:
        text = f'{{"version":"1.0","added_tokens":[{added}],"normalizer":{normalizer},'
        return f'{text}"model":{{"type":"BPE","vocab":{vocab},"merges":[{merges}]}}}}'.encode()

    def tokens(count: int, unit: str = '"%d":%d') -> str:
        return "{" + ",".join(unit % (i, i) for i in range(count)) + "}"

    def merges(count: int, prefix: str = "") -> str:
        """Of numbers, which have to be tokens: 12 and 3 make 123."""
        return ",".join(f'["{prefix}{i // 10}","{i % 10}"]' for i in range(10, count + 10))

    def added(count: int, width: int) -> str:
        flags = '"single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true'
        return ",".join(f'{{"id":{i},"content":"{i:{width}}",{flags}}}' for i in range(count))

    def steps(count: int) -> str:
        return '{"type":"Sequence","normalizers":[' + '{"type":"NFC"},' * count + '{"type":"no such"}]}'

    def pieces(count: int) -> str:
        return "[" + ",".join(f'["{i}",-1]' for i in range(count)) + "]"

    yield "tokens", file(tokens(1_750_000, '"token %07d":%d'))
    yield "short tokens", file(tokens(2_100_000))
    yield "pieces", file(pieces(2_700_000)).replace(b"BPE", b"Unigram")
    yield "merges", file(tokens(100_000), merges(90_000) + ',["1","2"]' * 3_800_000)
    yield "added tokens", file("{}", added=added(340_000, 8))
    yield "long added tokens", file("{}", added=added(66_000, 500))
    yield "normalizers", file("{}", normalizer=steps(2_600_000))
    yield "brackets", b'{"model":' + b"[" * (39 * MiB)
    yield "lists", b'{"model":[' + b"[]," * (13 * MiB) + b"[]]}"
    yield "spaces", file("{}") + b" " * (39 * MiB)
    yield "unknown merge", file(tokens(458_000), merges(458_000) + ',["1","no such"]')
    long = "long " * 7
    some = tokens(330_000, f'"{long}%d":%d')[:-1] + "," + tokens(10)[1:]
    yield "unknown merge of long tokens", file(some, merges(320_000, long) + ',["1","no such"]')
    yield "unknown normalizer", file(tokens(910_000), normalizer=steps(130_000))
    yield "no such token", file(tokens(910_000), added=added(1 << 15, 32)).replace(b"BPE", b"WordPiece")
