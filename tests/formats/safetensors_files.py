"""safetensors files made byte by byte, those that lie among them."""

from __future__ import annotations

import json
import struct


def file(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


MALFORMED = {
    "empty": b"",
    "short": b"1234567",
    "huge header": file({}, length=2**63),
    "header past the end": file({}, length=3),
    "no JSON": file(b"{"),
    "not an object": file(b"[1]"),
    "deep": file(b'{"a":' + b"[" * 100_000),
    "tensor no object": file({"a": 3}),
    "no dtype": file({"a": {"shape": [2], "data_offsets": [0, 8]}}, b"12345678"),
    "shape of strings": file({"a": one(shape=["2"])}, b"12345678"),
    "unknown dtype": file({"a": one("F4")}, b"12345678"),
    "negative size": file({"a": one(shape=(-2,))}, b"12345678"),
    "huge size": file({"a": one(shape=(2**63,))}, b"12345678"),
    "product overflows": file({"a": one(shape=(2**61, 2**61, 2**61))}, b"12345678"),
    "too many dimensions": file({"a": one(shape=[1] * 9 + [2])}, b"12345678"),
    "three offsets": file({"a": one(offsets=(0, 4, 8))}, b"12345678"),
    "offsets turned": file({"a": one(offsets=(8, 0))}, b"12345678"),
    "negative offset": file({"a": one(offsets=(-8, 0))}, b"12345678"),
    "past the end": file({"a": one(offsets=(0, 8))}, b"1234567"),
    "wrong length": file({"a": one(shape=(3,))}, b"12345678"),
    "hole": file({"a": one(), "b": one(offsets=(12, 20))}, b"1" * 20),
    "overlap": file({"a": one(), "b": one(offsets=(4, 12))}, b"1" * 12),
    "left over": file({"a": one()}, b"1" * 9),
    "name twice": file(b'{"a":%s,"a":%s}' % ((json.dumps(one()).encode(),) * 2), b"12345678"),
    "field twice": file(b'{"a":{"dtype":"F32","dtype":"F64","shape":[2],"data_offsets":[0,8]}}', b"12345678"),
    "header of 17 MiB": file(b"{" + b" " * (17 << 20) + b"}"),
    "offset 2^64": file({"a": one(offsets=(0, 2**64))}, b"12345678"),
    "same bytes twice": file({"a": one(), "b": one()}, b"12345678"),
    "empty header": file(b""),
    "no UTF-8": file(b'{"\xff":1}'),
    "metadata no strings": file({"__metadata__": {"a": 1}, "a": one()}, b"12345678"),
}

# What is said of them, behind the path; of what a library says, the beginning.
SAYS = {
    "empty": "- the file is empty",
    "short": "it is shorter than its header",
    "huge header": "its header claims 9223372036854775808 bytes, and the file has 10",
    "header past the end": "its header claims 3 bytes, and the file has 10",
    "no JSON": "its header is no valid JSON of tensors: ",
    "not an object": "its header is no valid JSON of tensors: ",
    "deep": "its header is no valid JSON of tensors: ",
    "tensor no object": "its header is no valid JSON of tensors: ",
    "no dtype": "its header is no valid JSON of tensors: ",
    "shape of strings": "its header is no valid JSON of tensors: ",
    "unknown dtype": "tensor 'a' has the unknown type 'F4'",
    "negative size": "tensor 'a' has shape [-2]",
    "huge size": "tensor 'a' has shape [9223372036854775808]",
    "product overflows": "tensor 'a' is F32 [2305843009213693952, 2305843009213693952, "
    "2305843009213693952] but has 8 bytes",
    "too many dimensions": "tensor 'a' has shape [1, 1, 1, 1, 1, 1, 1, 1, 1]",
    "three offsets": "its header is no valid JSON of tensors: ",
    "offsets turned": "tensor 'a' has bytes 8 to 0, after a tensor that ends at 0",
    "negative offset": "tensor 'a' has bytes -8 to 0, after a tensor that ends at 0",
    "past the end": "tensor 'a' ends at byte 8 of 7",
    "wrong length": "tensor 'a' is F32 [3] but has 8 bytes",
    "hole": "tensor 'b' has bytes 12 to 20, after a tensor that ends at 8",
    "overlap": "tensor 'b' has bytes 4 to 12, after a tensor that ends at 8",
    "left over": "its tensors end at byte 8 of 9: is the download complete?",
    "name twice": "- malformed: 'a' appears twice",
    "field twice": "- malformed: 'dtype' appears twice",
    "header of 17 MiB": "its header claims 17825794 bytes, and the file has 17825802",
    "offset 2^64": "tensor 'a' ends at byte 18446744073709551616 of 8",
    "same bytes twice": "tensor 'b' has bytes 0 to 8, after a tensor that ends at 8",
    "empty header": "its header is no valid JSON of tensors: ",
    "no UTF-8": "its header is no valid JSON of tensors: ",
    "metadata no strings": "its header is no valid JSON of tensors: ",
}
