"""Logs that say what happened and not what about."""

import asyncio
import io
import logging

import pytest

from tenon.util import log

CANARY = "canary-41c9"


@pytest.fixture
def written(monkeypatch):
    """What a logger with tenon's format writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(log.Formatter("%(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger("tenon.test"), logging.getLogger("asyncio")]
    for logger in loggers:
        logger.addHandler(handler)
        monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(log, "_show_texts", False)
    yield stream
    for logger in loggers:
        logger.removeHandler(handler)


def fail():
    try:
        int(CANARY)
    except ValueError as error:
        try:
            raise KeyError(CANARY) from error
        except KeyError:
            raise RuntimeError(CANARY)  # noqa: B904


def test_tracebacks_without_texts(written):
    try:
        fail()
    except RuntimeError:
        logging.getLogger("tenon.test").exception("it failed")
    text = written.getvalue()
    assert CANARY not in text
    assert text.startswith("ERROR tenon.test: it failed\n")
    parts = ["ValueError", "which led to", "KeyError", "which led to", "RuntimeError", "--log-requests"]
    at = [text.index(part) for part in parts]
    assert at[0] < at[2] < at[4]
    assert "int(CANARY)" in text, "the line it came through"
    assert text.count("Traceback") == 3


def test_texts_where_they_are_wanted(written, monkeypatch):
    monkeypatch.setattr(log, "_show_texts", True)
    with pytest.raises(RuntimeError) as caught:
        fail()
    logging.getLogger("tenon.test").error("it failed", exc_info=caught.value)
    assert log.describe(caught.value) == f"RuntimeError: {CANARY}"
    log.hide_texts()
    assert log.describe(caught.value) == "RuntimeError"
    assert written.getvalue().count(CANARY) >= 3


def test_another_handler_that_comes_first(written):
    """A record keeps the traceback that was made of it first."""
    logger = logging.getLogger("tenon.test")
    other = logging.StreamHandler(io.StringIO())
    logger.handlers.insert(0, other)
    try:
        fail()
    except RuntimeError:
        logger.exception("it failed")
    logger.removeHandler(other)
    assert CANARY in other.stream.getvalue()
    assert CANARY not in written.getvalue()


def test_an_error_that_is_its_own_reason(written):
    error = RuntimeError(CANARY)
    other = KeyError(CANARY)
    error.__cause__, other.__cause__ = other, error
    logging.getLogger("tenon.test").error("circle", exc_info=error)
    assert CANARY not in written.getvalue()
    assert written.getvalue().count("Traceback") == 2


def test_what_asyncio_says_of_a_task_that_nobody_asks(written):
    async def lost():
        raise ValueError(CANARY)

    async def main():
        asyncio.get_running_loop().call_soon(int, CANARY)
        task = asyncio.ensure_future(lost())
        await asyncio.sleep(0.01)
        del task

    asyncio.run(main())
    text = written.getvalue()
    assert "Task exception was never retrieved" in text
    assert "ValueError" in text
    assert CANARY not in text
