"""What clients of a server see, written down and then judged: etcd's robustness tests work like that.

`ask` sends one request over a socket of its own and records every byte until the server closes it.
`judge` checks a record by itself, `meaning` is what an answer says, whatever pieces it came in: for equal
requests it must be equal. Answers of the oracle model (`tenon.engine.oracle`) are judged token by token.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tenon.engine.oracle import EOS, VOCAB, entries, logits_of, mix

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"

STATUSES = {200, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 431, 500, 503, 504}
SECRETS = re.compile(rb"0x[0-9a-f]{6,}|/home/|site-packages|Traceback|File \"|failpoint")


@dataclass(repr=False)
class Record:
    """One request and all that came back."""

    path: str
    body: dict[str, Any]
    request_id: str
    status: int = 0  # 0: nothing came
    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    whole: bool = False  # the HTTP message ended as it should
    rest: bytes = b""  # what came after its end

    def __repr__(self) -> str:
        asked = json.dumps({k: v for k, v in self.body.items() if k != "prompt"})[:300]
        end = self.data[-500:]
        return f"{self.request_id} {self.path} {asked} -> {self.status} {self.whole} {end!r} {self.rest!r}"

    @property
    def streams(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def events(self) -> list[Any]:
        """The data of a stream's events; "[DONE]" as it is."""
        found = []
        for block in self.data.decode().split("\n\n"):
            data = "".join(line[5:].strip() for line in block.split("\n") if line.startswith("data:"))
            if data:
                found.append(data if data == "[DONE]" else json.loads(data))
        return found

    @property
    def error(self) -> dict[str, Any] | None:
        """The error that the answer is or ends with."""
        if self.streams:
            events = self.events
            last = events[-1] if events else None
            if not isinstance(last, dict):
                return None
            if last.get("type") == "response.failed":
                return last["response"]["error"]
            return last if last.get("type") == "error" and "error" not in last else last.get("error")
        if self.status in (0, 200):
            return None
        return json.loads(self.data)["error"]


async def ask(
    address: tuple[str, int],
    path: str,
    body: dict[str, Any],
    request_id: str,
    headers: dict[str, str] | None = None,
    seconds: float = 60.0,
) -> Record:
    """Send a request and record what comes. Raises TimeoutError for a server that leaves it hanging."""
    record = Record(path, body, request_id)
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(request_bytes(path, body, request_id, headers))
            await writer.drain()
            read(record, await reader.read(-1))
        except ConnectionError:
            pass
        finally:
            writer.close()
    return record


def request_bytes(
    path: str, body: dict[str, Any], request_id: str, headers: dict[str, str] | None = None
) -> bytes:
    data = json.dumps(body).encode()
    fields = {
        "host": "localhost",
        "content-type": "application/json",
        "content-length": str(len(data)),
        "x-request-id": request_id,
        "connection": "close",
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + data


def read(record: Record, raw: bytes) -> None:
    """Take the bytes of a connection apart."""
    head, found, body = raw.partition(b"\r\n\r\n")
    if not found:
        return
    first, *lines = head.decode("latin-1").split("\r\n")
    record.status = int(first.split()[1])
    record.headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    if record.headers.get("transfer-encoding") == "chunked":
        record.data, record.whole, record.rest = _chunks(body)
    else:
        length = int(record.headers.get("content-length", len(body)))
        record.data, record.rest = body[:length], body[length:]
        record.whole = len(record.data) == length


def _chunks(body: bytes) -> tuple[bytes, bool, bytes]:
    data = b""
    while True:
        size, found, body = body.partition(b"\r\n")
        if not found:
            return data, False, b""
        length = int(size, 16)
        if length == 0:
            return data, body.startswith(b"\r\n"), body[2:]
        if len(body) < length + 2:
            return data + body[:length], False, b""
        data, body = data + body[:length], body[length + 2 :]


def judge(record: Record) -> None:
    """Assert what holds for every answer: a known status, one end, nothing after it, no internals."""
    assert record.status in STATUSES, record
    assert record.whole, f"cut off: {record}"
    assert not record.rest, f"bytes after the end: {record}"
    assert not SECRETS.search(record.data), record
    assert record.headers["x-request-id"] == record.request_id, record
    if record.streams:
        ends = [i for i, event in enumerate(record.events) if _is_end(event)]
        assert ends == [len(record.events) - 1], f"one end, at the end: {record}"
    elif record.status != 200:
        error = record.error
        assert error, record
        assert error["message"], record
        assert error["type"], record
        if record.status >= 500:
            assert "code" not in error or error["code"], record
            assert record.status != 500 or record.request_id in error["message"], record


def _is_end(event: Any) -> bool:
    if event == "[DONE]" or "error" in event:
        return True
    return event.get("type") in {
        "error",
        "message_stop",
        "response.completed",
        "response.incomplete",
        "response.failed",
    }


def meaning(record: Record) -> Any:
    """What an answer says: texts, token ids, reasons, usage; not its ids and times, nor how it was cut."""
    if not record.streams:
        answer = json.loads(record.data)
        if record.path in (CHAT, COMPLETIONS):
            return _folded([answer]), counted(answer["usage"])
        if record.path == RESPONSES:
            return _texts(answer), counted(answer["usage"])
        return [block["text"] for block in answer["content"]], answer["stop_reason"], counted(answer["usage"])
    events = [event for event in record.events if event != "[DONE]"]
    if record.path in (CHAT, COMPLETIONS):
        events = [event for event in events if "error" not in event]
        usages = [event["usage"] for event in events if event.get("usage")]
        return _folded(events), counted(usages[-1]) if usages else None
    if record.path == RESPONSES:
        deltas = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
        final = events[-1]["response"]
        assert deltas == "".join(_texts(final)), "the deltas are not the text"
        return _texts(final), counted(final["usage"])
    text = [e["delta"]["text"] for e in events if e["type"] == "content_block_delta"]
    delta = next(e for e in events if e["type"] == "message_delta")
    return ["".join(text)] if text else [], delta["delta"]["stop_reason"], counted(delta["usage"])


def counted(usage: dict[str, Any]) -> tuple[int, int]:
    """Tokens of the prompt and of the answer. What of it was cached depends on who came before."""
    if "prompt_tokens" in usage:
        return usage["prompt_tokens"], usage["completion_tokens"]
    cached = sum(usage.get(name) or 0 for name in ("cache_read_input_tokens", "cache_creation_input_tokens"))
    return usage["input_tokens"] + cached, usage["output_tokens"]


def _folded(answers: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    choices: dict[int, dict[str, Any]] = {}
    for answer in answers:
        for choice in answer["choices"]:
            whole = choices.setdefault(choice["index"], {"text": "", "ids": [], "reason": None})
            part = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
            whole["text"] += part.get("content") or ""
            whole["ids"] += choice.get("token_ids") or []
            whole["reason"] = choice.get("finish_reason") or whole["reason"]
    return choices


def _texts(response: dict[str, Any]) -> list[str]:
    return [
        part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"]
    ]


class Truth:
    """The oracle model's own greedy answer to a prompt, token by token, in constant time for each."""

    def __init__(self, prompt: list[int]) -> None:
        self._length = len(prompt)
        weight_C = 2 * np.arange(len(prompt), dtype=np.uint64) + np.uint64(1)
        entry_C = entries(np.array(prompt, np.int64), np.arange(len(prompt)))
        self._chain_1 = np.sum(mix(entry_C * weight_C), dtype=np.uint64, keepdims=True)

    def next(self) -> int:
        token = int(logits_of(self._chain_1, VOCAB)[0].argmax())
        weight_1 = np.array([2 * self._length + 1], np.uint64)
        self._chain_1 = self._chain_1 + mix(entries(np.array([token]), np.array([self._length])) * weight_1)
        self._length += 1
        return token


def judge_tokens(record: Record) -> int:
    """Every token of a greedy completion of the oracle model is the one that its prompt decides, and the
    usage counts them. The prompt is given as token ids. Returns how many were looked at."""
    choices, usage = meaning(record)
    total = 0
    for choice in choices.values():
        truth = Truth(record.body["prompt"])
        assert choice["ids"] == [truth.next() for _ in choice["ids"]], "a wrong token"
        total += len(choice["ids"])
        if not record.error:
            stopped = choice["ids"][-1] == EOS and not record.body.get("ignore_eos")
            assert choice["reason"] == ("stop" if stopped else "length")
            assert stopped or len(choice["ids"]) == record.body["max_tokens"]
    if usage:
        assert usage == (len(record.body["prompt"]), total)
    return total
