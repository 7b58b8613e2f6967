"""JSON bodies that are as expensive to read as a body of that size can be: name, path, and what makes one.

They are made when needed, because each is as large as a body may be.
"""

from __future__ import annotations

from collections.abc import Callable

MIB = 1 << 20
SIZE = 8 * MIB - 100

CHAT, TEXT, VECTORS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"


def filled(head: bytes, unit: bytes, tail: bytes) -> Callable[[], bytes]:
    """`unit` again and again between head and tail, up to the size that a body may have."""
    return lambda: (
        head + (unit * (SIZE // len(unit)))[: SIZE // len(unit) * len(unit) - len(unit)] + unit + tail
    )


def items(head: bytes, unit: bytes, tail: bytes) -> Callable[[], bytes]:
    """The same, with commas between."""
    return lambda: head + b",".join([unit] * (SIZE // (len(unit) + 1))) + tail


MESSAGE = b'{"role":"user","content":"a"}'
BODIES: list[tuple[str, str, Callable[[], bytes]]] = [
    ("one long text", TEXT, filled(b'{"prompt":"', b"a", b'"}')),
    ("one long text of escapes", TEXT, filled(b'{"prompt":"', b"\\u00e9", b'"}')),
    ("one long text of quotes", TEXT, filled(b'{"prompt":"', b'\\"', b'"}')),
    ("one long message", CHAT, filled(b'{"messages":[{"role":"user","content":"', b"a ", b'"}]}')),
    ("token ids", TEXT, items(b'{"prompt":[', b"1", b"]}")),
    ("large token ids", TEXT, items(b'{"prompt":[', b"4294967295", b"]}")),
    ("lists of token ids", TEXT, items(b'{"prompt":[', b"[1]", b"]}")),
    ("texts", TEXT, items(b'{"prompt":[', b'"a"', b"]}")),
    ("inputs", VECTORS, items(b'{"input":[', b'"a"', b"]}")),
    ("messages", CHAT, items(b'{"messages":[', MESSAGE, b"]}")),
    ("empty objects", TEXT, items(b'{"prompt":"a","response_format":[', b"{}", b"]}")),
    ("empty lists", TEXT, items(b'{"prompt":"a","response_format":[', b"[]", b"]}")),
    ("empty texts", TEXT, items(b'{"prompt":"a","response_format":[', b'""', b"]}")),
    ("short texts", TEXT, items(b'{"prompt":"a","response_format":[', b'"abc"', b"]}")),
    ("numbers", TEXT, items(b'{"prompt":"a","response_format":[', b"1e3", b"]}")),
    ("long numbers", TEXT, items(b'{"prompt":"a","response_format":[', b"9" * 4000, b"]}")),
    ("one long number", TEXT, filled(b'{"prompt":"a","response_format":', b"9", b"}")),
    ("one long fraction", TEXT, filled(b'{"prompt":"a","temperature":0.', b"9", b"}")),
    ("one field again and again", TEXT, items(b"{", b'"prompt":"a"', b"}")),
    ("keys", TEXT, lambda: b'{"prompt":"a","logit_bias":{'
     + b",".join(b'"%d":1' % i for i in range(SIZE // 12)) + b"}}"),
    ("unknown fields", TEXT, lambda: b"{" + b",".join(b'"%d":1' % i for i in range(SIZE // 12)) + b"}"),
    ("lists in lists", TEXT,
     lambda: b'{"prompt":"a","response_format":' + b"[" * (SIZE // 2) + b"]" * (SIZE // 2) + b"}"),
    ("lists without an end", TEXT, filled(b'{"prompt":"a","response_format":', b"[", b"")),
    ("objects without an end", TEXT, filled(b'{"prompt":"a","response_format":', b'{"a":', b"")),
    ("wide and deep", TEXT, items(b'{"prompt":"a","response_format":[', b"[" * 60 + b"]" * 60, b"]}")),
    ("spaces", TEXT, filled(b'{"prompt":"a"', b" ", b"}")),
    ("stop strings", TEXT, items(b'{"prompt":"a","stop":[', b'"a"', b"]}")),
    ("tools", CHAT, items(b'{"messages":[' + MESSAGE + b'],"tools":[', b"{}", b"]}")),
    ("content parts", CHAT,
     items(b'{"messages":[{"role":"user","content":[', b'{"type":"text","text":"a"}', b"]}]}")),
    ("a schema of choices", TEXT, items(b'{"prompt":"a","structured_outputs":{"choice":[', b'"a"', b"]}}")),
    ("text that is no UTF-8", TEXT, filled(b'{"prompt":"', b"\xff", b'"}')),
]  # fmt: skip
