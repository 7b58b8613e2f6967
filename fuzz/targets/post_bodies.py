"""Bodies of every POST route, to a server with an oracle for a model: the route's path, a newline, the body.

A good request must still be answered after every thousand bad ones.
"""

from __future__ import annotations

import json
from itertools import count

from fuzz.asgi import Server
from tests.server.good_requests import FUNCTION, GOOD, SCHEMA

EXPECTED: tuple[type[Exception], ...] = ()
SECONDS = 4.0
_FORM = b"multipart/form-data; boundary=xx"
_MORE = {
    "/v1/embeddings": {"input": ["a", "b"], "encoding_format": "base64", "dimensions": 2},
    "/pooling": {"input": "a"},
    "/classify": {"input": "a"},
    "/score": {"text_1": "a", "text_2": ["b", "c"]},
    "/v1/rerank": {"query": "a", "documents": ["b"], "top_n": 1},
    "/v1/batches": {
        "input_file_id": "file-x",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    },
    "/v1/responses/resp_x/cancel": {},
    "/v1/batches/batch_x/cancel": {},
}
_GUIDED = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "a", "schema": SCHEMA, "strict": True},
    },
    "structured_outputs": {"regex": "[a-z]{1,5}"},
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "tools": [{"type": "function", "function": FUNCTION}],
}
_FILE = (
    b'--xx\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--xx\r\n'
    b'Content-Disposition: form-data; name="file"; filename="a.jsonl"\r\nContent-Type: text/plain\r\n\r\n'
    b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {}}\r\n--xx--\r\n'
)
_SERVER = Server()
_CANARY = json.dumps({"prompt": "canary", "max_tokens": 4, "seed": 1, "temperature": 0}).encode()
_NUMBERS = count(1)


def _names(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {name for inner in value.values() for name in _names(inner)}
    return {name for inner in value for name in _names(inner)} if isinstance(value, list) else set()


DICTIONARY = [f'"{name}":'.encode() for name in sorted(_names([*GOOD.values(), *_MORE.values(), _GUIDED]))]
DICTIONARY += [path.encode() + b"\n" for path in (*GOOD, *_MORE, "/v1/files")]
DICTIONARY += [
    b'"n":128,',
    b'"stream":true,',
    b'"logprobs":20,',
    b"[" * 100,
    b'{"a":' * 70,
    b"--xx\r\n",
    b"--xx--",
]


def seeds() -> dict[str, bytes]:
    found = {path: f"{path}\n{json.dumps(body)}".encode() for path, body in (GOOD | _MORE).items()}
    for path in ("/v1/chat/completions", "/v1/completions"):
        for name, value in _GUIDED.items():
            body = GOOD[path] | {name: value, "stream": False}
            found[f"{path} {name}"] = f"{path}\n{json.dumps(body)}".encode()
    found["file"] = b"/v1/files\n" + _FILE
    found["no path"] = b"/v1/nothing\n{}"
    found["deep"] = b"/v1/chat/completions\n" + b'{"messages":' * 5000
    return found


def run(data: bytes) -> None:
    path, _, body = data.partition(b"\n")
    text = path.decode("latin-1")
    _SERVER.post(text, body, _FORM if text == "/v1/files" else b"application/json")
    if next(_NUMBERS) % 1000 == 0:
        status, answer = _SERVER.post("/v1/completions", _CANARY)
        assert status == 200
        assert json.loads(answer)["usage"]["completion_tokens"] == 4
        assert _SERVER.engine.num_in_flight == 0
