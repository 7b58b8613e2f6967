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
