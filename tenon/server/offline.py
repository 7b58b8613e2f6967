"""A file of requests answered without HTTP (`tenon run-batch`): the lines of the batch API, and its results.

Results are appended to `OUT.part` as they come. When all are there, they are put into the order of the input
and become OUT at once; until then, running the same again goes on where the last run was ended.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from tenon.errors import ConfigError, EngineDead
from tenon.server import line as lines
from tenon.server.executor import read
from tenon.server.schema.batches import BatchError, LineError, LineResult
from tenon.server.store.batches import Pending, new_result

if TYPE_CHECKING:
    from tenon.server.app import App


class _Head(msgspec.Struct):
    """First line of a part: what it is a part of."""

    input: str  # SHA-256


class _Done(msgspec.Struct):
    """A line of a part."""

    number: int
    failed: bool
    result: msgspec.Raw


@dataclass(slots=True)
class Counts:
    total: int = 0
    completed: int = 0
    failed: int = 0
    resumed: int = 0  # of these, done by a former run


class Sink:
    """Takes results in the order in which they come."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self.done: dict[int, bool] = {}  # number of a line to whether it failed

    def add(self, number: int, result: LineResult, failed: bool) -> None:
        self._out.write(self._encode(number, result, failed) + b"\n")
        self._out.flush()
        self.done[number] = failed

    def _encode(self, number: int, result: LineResult, failed: bool) -> bytes:
        return msgspec.json.encode(result)

    def finish(self) -> None:
        """All results are here."""

    def close(self) -> None:
        """No more come, be they all here or not."""


class Part(Sink):
    """The results of a run that can be ended and gone on with."""

    def __init__(self, out: Path, source: Path) -> None:
        """Raises ConfigError for a part of something else."""
        self._target, self._path = out, out.with_name(out.name + ".part")
        head = _Head(_digest(source))
        try:
            done = _read_part(self._path, head)
            super().__init__(self._path.open("r+b" if done is not None else "wb"))
        except OSError as error:
            raise ConfigError(f"cannot write {self._path}: {error.strerror}") from None
        if done is None:
            self._out.write(msgspec.json.encode(head) + b"\n")
            self._out.flush()
        else:
            self.done, end = done
            self._out.seek(end)
            self._out.truncate()

    def close(self) -> None:
        self._out.close()

    def _encode(self, number: int, result: LineResult, failed: bool) -> bytes:
        return msgspec.json.encode(_Done(number, failed, msgspec.Raw(msgspec.json.encode(result))))

    def finish(self) -> None:
        """Put them in order. Whatever happens meanwhile, the part stays until OUT is whole."""
        self.close()
        places = {}
        ordered = self._target.with_name(self._target.name + ".ordered")
        with self._path.open("rb") as part, ordered.open("wb") as out:
            part.readline()
            start = part.tell()
            while data := part.readline():
                places[msgspec.json.decode(data, type=_Done).number] = start
                start = part.tell()
            for number in sorted(places):
                part.seek(places[number])
                out.write(bytes(msgspec.json.decode(part.readline(), type=_Done).result) + b"\n")
            out.flush()
            os.fsync(out.fileno())
        ordered.replace(self._target)
        self._path.unlink()


def _read_part(path: Path, head: _Head) -> tuple[dict[int, bool], int] | None:
    """The lines that are done, and where the last whole one ends. None: there is no part."""
    if not path.exists() or not path.stat().st_size:
        return None
    done = {}
    with path.open("rb") as part:
        try:
            first = msgspec.json.decode(part.readline(), type=_Head)
        except msgspec.MsgspecError:
            first = None
        if first != head:
            raise ConfigError(f"{path} belongs to another input: delete it, or choose another output")
        end = part.tell()
        for data in part:
            if not data.endswith(b"\n"):
                break  # the run was ended in the middle of it
            line = msgspec.json.decode(data, type=_Done)
            done[line.number] = line.failed
            end += len(data)
    return done, end


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def run_file(
    app: App,
    source: Path,
    sink: Sink,
    limit: int,
    progress: Callable[[int], AbstractContextManager[Callable[[], None]]],
) -> Counts:
    """Answer every line of `source` that the sink does not have yet, `limit` at a time.

    `progress(total)` is a context whose value is called after each line. Raises ConfigError, EngineDead.
    """
    found, errors = await asyncio.to_thread(read, source, None, app.settings.limits, bounded=False)
    resumed = len(sink.done)
    wrong = [error for error in errors if error.line is not None]
    if not found and not wrong:
        raise ConfigError("the input has no lines")
    slots = asyncio.Semaphore(limit)
    with source.open("rb") as file, progress(len(found) + len(wrong)) as advance:
        for _ in sink.done:
            advance()
        for error in wrong:
            if error.line not in sink.done:
                _refuse(sink, error)
                advance()

        async def work(pending: Pending) -> None:
            try:
                data = await asyncio.to_thread(os.pread, file.fileno(), pending.length, pending.start)
                result, code = await lines.answer(app, lines.parse(data, None), "")
                if code in ("engine_dead", "engine_restarted"):
                    raise EngineDead("the engine has died; run the same command again to go on")
                sink.add(pending.number, result, code is not None)
                advance()
            finally:
                slots.release()

        try:
            async with asyncio.TaskGroup() as group:
                for pending in found:
                    if pending.number not in sink.done:
                        await slots.acquire()
                        group.create_task(work(pending))
        except ExceptionGroup as failures:
            dead, others = failures.split(EngineDead)
            if dead is None or others is not None:
                raise
            raise dead.exceptions[0] from None
    sink.finish()
    failed = sum(sink.done.values())
    return Counts(len(sink.done), len(sink.done) - failed, failed, resumed)


def _refuse(sink: Sink, error: BatchError) -> None:
    """The result of a line that is no request; nobody knows its custom_id."""
    assert error.line is not None
    reason = LineError(code=error.code, message=f"line {error.line}: {error.message}")
    sink.add(error.line, new_result("", error=reason), True)
