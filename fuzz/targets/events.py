"""Text in server-sent events: whatever a model writes, one event is one event and says the same."""

from __future__ import annotations

import json

from tenon.server.errors import ApiError
from tenon.server.schema.responses import TextDelta
from tenon.server.wire import OPENAI, named_event

EXPECTED: tuple[type[Exception], ...] = ()
DICTIONARY = [b"data: ", b"event: ", b"\n\n", b"\r\n", b"\r", b"[DONE]", "\u2028\u2029\u0085".encode(), b": "]


def seeds() -> dict[str, bytes]:
    texts = ["a", "a\n\ndata: [DONE]\n\n", "\r\r", "\u2028", "\x00\x1f\x7f", "\U0001f642", "event: x\n", "]}"]
    return {repr(text): text.encode() for text in texts}


def run(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    delta = TextDelta(
        sequence_number=1, item_id="i", output_index=0, content_index=0, delta=text, logprobs=[]
    )
    for event, head in (
        (OPENAI.event({"text": text}), b"data: "),
        (named_event(delta), b"event: response.output_text.delta\ndata: "),
    ):
        assert event.startswith(head)
        assert event.endswith(b"\n\n")
        payload = event[len(head) : -2]
        assert b"\n" not in payload
        assert b"\r" not in payload
        read = json.loads(payload)
        assert text in (read.get("text"), read.get("delta"))
    broken = OPENAI.broken(ApiError(500, text, kind="server_error", code="x"), "r", None)
    assert broken.count(b"\n") == 2
    assert broken.endswith(b"\n\n")
