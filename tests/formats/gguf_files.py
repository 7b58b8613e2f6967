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

# What is said of them, behind the path; of what a library says, the beginning.
SAYS = {
    "empty": "- the file is empty",
    "magic": "- not a GGUF file",
    "cut in the header": "it ends inside the header (8 bytes at 8, 14 in the file)",
    "cut in a key": "the metadata claims 1 items, more than the file can hold",
    "cut in a value": "it ends inside the value of 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' (8 bytes "
    "at 76, 80 in the file)",
    "huge number of entries": "the metadata claims 9223372036854775808 items; at most 65536 are read",
    "huge number of tensors": "the list of tensors claims 9223372036854775808 items; at most 262144 are read",
    "more entries than the file can hold": "the metadata claims 50 items, more than the file can hold",
    "huge key": "a metadata key has 9223372036854775808 bytes",
    "long key": "a metadata key has 70000 bytes",
    "key no text": "a metadata key is not UTF-8",
    "huge string": "it ends inside the value of 'k'",
    "string past the end": "it ends inside the value of 'k'",
    "huge array": "the value of 'k' claims 9223372036854775808 items; at most 4194304 are read",
    "huge array of strings": "the value of 'k' claims 9223372036854775808 items; at most 4194304 are read",
    "array of strings past the end": "it ends inside the value of 'k'",
    "array in an array": "the value of 'k' has type 9 inside an array",
    "unknown value type": "the value of 'k' has type 77",
    "key twice": "metadata key 'k' appears twice",
    "alignment 0": "general.alignment is 0, not a power of two",
    "alignment 48": "general.alignment is 48, not a power of two",
    "alignment 2^31": "general.alignment is 2147483648, not a power of two",
    "alignment a string": "general.alignment is '32', not a power of two",
    "tensor twice": "tensor 't' appears twice",
    "no dimensions": "tensor 't' has 0 dimensions",
    "too many dimensions": "tensor 't' has 5 dimensions",
    "huge number of dimensions": "tensor 't' has 4294967295 dimensions",
    "empty tensor": "tensor 't' is empty: (4, 0)",
    "shape overflows 64 bits": "tensor 't' has shape (4294967296, 4294967296, 4294967296), "
    "more than the file can hold",
    "shape wraps to the right size": "tensor 't' has shape (8, 4, 4611686018427387904), "
    "more than the file can hold",
    "offset off the grid": "tensor 't' lies at offset 4, which is no multiple of 32",
    "offset past the end": "tensor 't' takes 128 bytes at 1099511627840, but the file has 192: is the "
    "download complete?",
    "huge offset": "tensor 't' takes 128 bytes at 9223372036854775872, but the file has 192: is the "
    "download complete?",
    "data cut": "tensor 't' takes 128 bytes at 64, but the file has 191: is the download complete?",
    "no whole blocks": "tensor 't': q8_0 rows are multiples of 32 elements, not 48",
    "2^64 - 1 entries": "the metadata claims 18446744073709551615 items; at most 65536 are read",
    "2^64 - 1 tensors": "the list of tensors claims 18446744073709551615 items; at most 262144 are read",
    "more entries than any file has": "the metadata claims 131072 items; at most 65536 are read",
    "more tensors than any file has": "the list of tensors claims 524288 items; at most 262144 are read",
    "more items than any array has": "the value of 'k' claims 8388608 items; at most 4194304 are read",
    "string of 2^64 - 1 bytes": "it ends inside the value of 'k'",
    "negative value type": "the value of 'k' has type 4294967295",
    "negative tensor type": "- tensor 't' has type number 4294967295; tenon loads ",
    "alignment 2^32 - 1": "general.alignment is 4294967295, not a power of two",
    "alignment 1.5": "general.alignment is 1.5, not a power of two",
    "alignment an array": "general.alignment is [32], not a power of two",
    "arrays in arrays": "the value of 'k' has type 9 inside an array",
    "offset that wraps": "tensor 't' takes 128 bytes at 18446744073709551648, but the file has 192: is "
    "the download complete?",
    "tensors that overlap": "tensor 'u' begins at 192, inside 't'",
    "tensors at one place": "tensor 'u' begins at 96, inside 't'",
    "product of dimensions 0 by wrapping": "tensor 't' has shape (4294967296, 4294967296), "
    "more than the file can hold",
}
