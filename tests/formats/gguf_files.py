"""GGUF files made byte by byte: what the format allows, and files that lie."""

from __future__ import annotations

import struct

STRING, ARRAY, U32, F32, I8 = 8, 9, 4, 6, 1


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def tensor(name, dims, kind=0, offset=0):
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def file(entries=(), tensors=(), data=b"", *, magic=b"GGUF", version=3, counts=None, alignment=32):
    num_tensors, num_entries = counts or (len(tensors), len(entries))
    head = magic + struct.pack("<IQQ", version, num_tensors, num_entries) + b"".join((*entries, *tensors))
    return head + b"\0" * (-len(head) % alignment) + data


ONE = bytes(128)
HUGE = 2**63
MALFORMED = {
    "empty": b"",
    "magic": file(magic=b"GGML"),
    "cut in the header": file()[:14],
    "cut in a key": file([entry("key", U32, b"1234")])[:30],
    "cut in a value": file(counts=(0, 1))[:24] + entry("a" * 40, 12, b"1234"),
    "huge number of entries": file(counts=(0, HUGE)),
    "huge number of tensors": file(counts=(HUGE, 0)),
    "more entries than the file can hold": file([entry("k", U32, b"1234")], counts=(0, 50)),
    "huge key": file(counts=(0, 1))[:24] + struct.pack("<Q", HUGE) + b"x" * 64,
    "long key": file([entry("k" * 70000, U32, b"1234")]),
    "key no text": file([entry(b"\xff\xfe", U32, b"1234")]),
    "huge string": file(counts=(0, 1))[:24] + text("k") + struct.pack("<IQ", STRING, HUGE) + b"x" * 64,
    "string past the end": file(counts=(0, 1))[:24] + text("k") + struct.pack("<IQ", STRING, 65) + b"x" * 64,
    "huge array": file(counts=(0, 1))[:24] + text("k") + struct.pack("<IIQ", ARRAY, U32, HUGE) + b"x" * 64,
    "huge array of strings": file([entry("k", ARRAY, struct.pack("<IQ", STRING, HUGE))]),
    "array of strings past the end": file(
        [entry("k", ARRAY, struct.pack("<IQ", STRING, 3) + text("a") + struct.pack("<Q", 2**40))]
    )
    + ONE,
    "array in an array": file([entry("k", ARRAY, struct.pack("<IQ", ARRAY, 1) + b"\0" * 12)]),
    "unknown value type": file([entry("k", 77, b"1234")]),
    "key twice": file([entry("k", U32, b"1234"), entry("k", U32, b"1234")]),
    "alignment 0": file([entry("general.alignment", U32, struct.pack("<I", 0))]),
    "alignment 48": file([entry("general.alignment", U32, struct.pack("<I", 48))]),
    "alignment 2^31": file([entry("general.alignment", U32, struct.pack("<I", 2**31))]),
    "alignment a string": file([entry("general.alignment", STRING, text("32"))]),
    "tensor twice": file([], [tensor("t", [32]), tensor("t", [32])], ONE),
    "no dimensions": file([], [tensor("t", [])], ONE),
    "too many dimensions": file([], [tensor("t", [2, 2, 2, 2, 2])], ONE),
    "huge number of dimensions": file(counts=(1, 0))[:24] + text("t") + b"\xff" * 4 + b"\0" * 99,
    "empty tensor": file([], [tensor("t", [0, 4])], ONE),
    "shape overflows 64 bits": file([], [tensor("t", [2**32, 2**32, 2**32])], ONE),
    "shape wraps to the right size": file([], [tensor("t", [2**62, 4, 8])], ONE),
    "offset off the grid": file([], [tensor("t", [8], 0, 4)], ONE),
    "offset past the end": file([], [tensor("t", [32], 0, 2**40)], ONE),
    "huge offset": file([], [tensor("t", [32], 0, HUGE)], ONE),
    "data cut": file([], [tensor("t", [32])], ONE[:-1]),
    "no whole blocks": file([], [tensor("t", [48], 8)], ONE),
    "2^64 - 1 entries": file(counts=(0, 2**64 - 1)),
    "2^64 - 1 tensors": file(counts=(2**64 - 1, 0)),
    "more entries than any file has": file(counts=(0, 1 << 17)) + bytes(13 << 17),
    "more tensors than any file has": file(counts=(1 << 19, 0)) + bytes(32 << 19),
    "more items than any array has": file(
        [entry("k", ARRAY, struct.pack("<IQ", I8, 1 << 23) + bytes(1 << 23))]
    ),
    "string of 2^64 - 1 bytes": file([entry("k", STRING, struct.pack("<Q", 2**64 - 1))]),
    "negative value type": file([entry("k", 2**32 - 1, b"1234")]),
    "negative tensor type": file([], [tensor("t", [32], 2**32 - 1)], ONE),
    "alignment 2^32 - 1": file([entry("general.alignment", U32, struct.pack("<I", 2**32 - 1))]),
    "alignment 1.5": file([entry("general.alignment", F32, struct.pack("<f", 1.5))]),
    "alignment an array": file([entry("general.alignment", ARRAY, struct.pack("<IQI", U32, 1, 32))]),
    "arrays in arrays": file([entry("k", ARRAY, struct.pack("<IQ", ARRAY, 1) * 1000)]),
    "offset that wraps": file([], [tensor("t", [32], 0, 2**64 - 32)], ONE),
    "tensors that overlap": file([], [tensor("t", [32]), tensor("u", [8], 0, 96)], ONE),
    "tensors at one place": file([], [tensor("t", [32]), tensor("u", [32])], ONE),
    "product of dimensions 0 by wrapping": file([], [tensor("t", [2**32, 2**32])], ONE),
}  # fmt: skip
