"""What is logged, and what is not: no word of what users ask or are answered, unless the operator says so.

The text of an exception can hold a piece of a prompt (`invalid literal for int() with base 10: '...'`). So
tracebacks tell the types of exceptions and the lines they came through, and their texts only where
`configure` was told so. In an engine's process they are shown until the model is loaded: there are no users
until then.
"""

from __future__ import annotations

import logging
import re
import traceback
from types import TracebackType

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

LAYOUT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_show_texts = False


def configure(level: int | str, *, texts: bool) -> None:
    """Log to standard error in this process."""
    global _show_texts
    _show_texts = texts
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter(LAYOUT))
    logging.basicConfig(level=level, handlers=[handler])


def hide_texts() -> None:
    """From now on."""
    global _show_texts
    _show_texts = False


def shows_texts() -> bool:
    return _show_texts


def describe(error: BaseException) -> str:
    """An exception in a few words, its text among them where that may be shown."""
    name = type(error).__name__
    return f"{name}: {error}" if _show_texts else name


class Formatter(logging.Formatter):
    """Tracebacks without the texts of exceptions."""

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info and not _show_texts:
            # Another handler may have left its traceback in the record, with texts.
            record = logging.makeLogRecord({**record.__dict__, "exc_text": None})
            if record.name == "asyncio":
                # It goes on with arguments, tasks and their exceptions; the traceback says enough of them.
                record.msg = re.split(r"[\n(<]", record.getMessage())[0].rstrip()
                record.args = ()
        return super().format(record)

    def formatException(self, ei: _ExcInfo) -> str:
        error = ei[1]
        if _show_texts or error is None:
            return super().formatException(ei)
        return "\n".join(_story(error, set()))


def _story(error: BaseException, told: set[int]) -> list[str]:
    """What led to the error, then the error itself."""
    told.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    lines: list[str] = []
    if before is not None and id(before) not in told:
        lines = [*_story(before, told), "", "which led to:", ""]
    frames = "".join(traceback.format_tb(error.__traceback__)).rstrip().splitlines()
    return [*lines, "Traceback (most recent call last):", *frames, _name(type(error))]


def _name(kind: type[BaseException]) -> str:
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{module}{kind.__qualname__} (its text may be a user's and is not shown; see --log-requests)"
