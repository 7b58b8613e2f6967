"""The judge of histories sees what it is there to see."""

import json

import pytest

from tenon.engine.oracle import answer_logits
from tests.history import COMPLETIONS, Record, Truth, judge, judge_tokens, read, request_bytes


def chunked(*parts: str) -> bytes:
    return b"".join(f"{len(p.encode()):x}\r\n{p}\r\n".encode() for p in parts)


def answer(*events: str, end: str = "0\r\n\r\n") -> Record:
    record = Record(COMPLETIONS, {"prompt": [1, 2], "max_tokens": 2, "ignore_eos": True}, "id")
    head = "HTTP/1.1 200 OK\r\nx-request-id: id\r\ncontent-type: text/event-stream\r\n"
    head += "transfer-encoding: chunked\r\n\r\n"
    read(record, head.encode() + chunked(*[f"data: {event}\n\n" for event in events]) + end.encode())
    return record


def chunk(ids: list[int], reason: str | None = None) -> str:
    return json.dumps({"choices": [{"index": 0, "text": "", "token_ids": ids, "finish_reason": reason}]})


def right() -> list[int]:
    truth = Truth([1, 2])
    return [truth.next(), truth.next()]


def test_the_truth_is_the_models():
    tokens = [1, 2]
    truth = Truth(tokens)
    for _ in range(20):
        token = int(answer_logits(tokens)[-1].argmax())
        assert truth.next() == token
        tokens.append(token)


def test_a_right_answer():
    one, two = right()
    record = answer(chunk([one]), chunk([two], "length"), "[DONE]")
    judge(record)
    assert judge_tokens(record) == 2


@pytest.mark.parametrize(
    ("events", "end", "what"),
    [
        (["{}"], "0\r\n\r\n", "one end"),
        (["[DONE]", "[DONE]"], "0\r\n\r\n", "one end"),
        (["[DONE]", "{}"], "0\r\n\r\n", "one end"),
        (['{"error": {"message": "x"}}', "[DONE]"], "0\r\n\r\n", "one end"),
        (["[DONE]"], "", "cut off"),
        (["[DONE]"], "0\r\n\r\nmore", "after the end"),
        (['{"text": "0x7f3a12c4"}', "[DONE]"], "0\r\n\r\n", "0x7f3a12c4"),
    ],
)
def test_a_wrong_history(events, end, what):
    with pytest.raises(AssertionError, match=what):
        judge(answer(*events, end=end))


def test_lost_doubled_and_foreign_tokens():
    one, two = right()
    for ids in ([two], [one, one], [one, (two + 1) % 256], [one]):
        with pytest.raises(AssertionError):
            judge_tokens(answer(chunk(ids, "length"), "[DONE]"))


def test_an_error_says_what_and_which():
    record = Record(COMPLETIONS, {}, "id-7")
    body = json.dumps({"error": {"message": "no", "type": "server_error", "code": "x"}})
    read(
        record, f"HTTP/1.1 500 X\r\nx-request-id: id-7\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
    )
    with pytest.raises(AssertionError):
        judge(record)  # the id is not in the message
    assert b"x-request-id: id-7" in request_bytes(COMPLETIONS, {}, "id-7")
