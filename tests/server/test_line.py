"""When a line of a batch is run again."""

import asyncio
import json

import msgspec
import pytest

from tenon.server import line as lines
from tenon.server.schema.batches import Line

LINE = Line(custom_id="a", method="POST", url="/v1/completions", body=msgspec.Raw(b"{}"))


@pytest.fixture
def asked(monkeypatch):
    """Error codes that the app answers with, one after the other; in the end it succeeds."""
    codes: list[str] = []

    async def ask(*_: object) -> lines._Answer:
        code = codes.pop(0) if codes else None
        body = json.dumps({"error": {"code": code}} if code else {}).encode()
        return lines._Answer(503 if code else 200, [body])

    async def sleep(seconds: float) -> None:
        assert seconds > 0

    monkeypatch.setattr(lines, "ask", ask)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return codes


@pytest.mark.parametrize("code", sorted(lines.PASSING | lines.DOUBTFUL))
async def test_what_passes_is_waited_for(asked, code):
    asked += [code, code]
    result, error = await lines.answer(None, LINE, "owner")
    assert (result.response.status_code, error) == (200, None)


async def test_what_may_be_the_lines_own_fault_is_not_tried_for_ever(asked):
    asked += ["unavailable"] * 100
    _, error = await lines.answer(None, LINE, "owner")
    assert error == "unavailable"
    assert len(asked) == 100 - lines.ATTEMPTS


async def test_what_is_wrong_stays_so(asked):
    asked += ["invalid_value"] * 2
    _, error = await lines.answer(None, LINE, "owner")
    assert (error, len(asked)) == ("invalid_value", 1)
