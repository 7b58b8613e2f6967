"""Runs batches: their lines in the background, a bounded number at a time, through the app itself.

A batch's state is in the store at every moment; what is here are the tasks that carry it on. So a server that
stops, in whatever way, just stops, and the next one begins with `resume`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import msgspec

from tenon.server import line as lines
from tenon.server.limits import Limits
from tenon.server.schema.batches import Batch, BatchError, BatchErrors, LineError
from tenon.server.store.batches import Pending
from tenon.util.tasks import end

if TYPE_CHECKING:
    from tenon.server.app import App
    from tenon.server.store.store import Store

log = logging.getLogger("tenon.server")

MAX_ERRORS = 100  # told of a file
EXPIRED = LineError(
    code="batch_expired",
    message="this request could not be run before the completion window ended",
)


@dataclass(slots=True)
class _Running:
    """A batch that is being carried on. `stop` is set to cancelling or expired to end it before its time."""

    owner: str
    task: asyncio.Task[None] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    stop: str | None = None
    broken: BaseException | None = None  # what a line could not be carried through for


class Executor:
    """The batches of one server."""

    def __init__(self, app: App, limit: int) -> None:
        self._app = app
        self._slots = asyncio.Semaphore(limit)
        self._num_lines = 0  # that run
        self._done = asyncio.Event()  # set, and made anew, with each line that ends
        self._running: dict[str, _Running] = {}

    async def resume(self, store: Store) -> None:
        """Go on with every batch that is not at its end."""
        for owner, batch in await store.batches.unfinished():
            log.info("batch %s goes on: %s", batch.id, batch.status)
            self._begin(store, owner, batch)

    async def create(self, store: Store, owner: str, batch: Batch) -> bool:
        """Keep a new batch and begin with it; both, even if the caller is cancelled. False: its owner has
        too many."""

        async def work() -> bool:
            await self._app.archive.forget()
            if await store.batches.add(owner, batch, self._app.settings.limits.key_batches):
                self._begin(store, owner, batch)
                return True
            return False

        return await asyncio.shield(work())

    async def cancel(self, store: Store, owner: str, batch_id: str) -> Batch:
        """End a batch, also one that stands still, if it can still be ended: its status says so."""

        def alter(now: Batch) -> None:
            if now.status in ("validating", "in_progress"):
                now.status, now.cancelling_at = "cancelling", _time()

        async def work() -> Batch:
            batch = await store.batches.change(batch_id, alter)
            if batch.status == "cancelling":
                if (running := self._running.get(batch_id)) is None:
                    self._begin(store, owner, batch)
                else:
                    running.stop = running.stop or "cancelling"
                    running.ended.set()
            return batch

        return await asyncio.shield(work())

    def _begin(self, store: Store, owner: str, batch: Batch) -> None:
        running = self._running[batch.id] = _Running(owner)
        running.task = asyncio.create_task(self._carry_on(store, batch, running), name=batch.id)

    async def stop(self) -> None:
        """Leave everything as it is in the store."""
        tasks = [running.task for running in self._running.values() if running.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- one batch

    async def _carry_on(self, store: Store, batch: Batch, running: _Running) -> None:
        """From whatever status it has to its end."""
        try:
            if batch.status == "validating":
                batch = await self._validate(store, batch, running)
            if batch.status == "cancelling":
                running.stop = "cancelling"
            if batch.status == "in_progress":
                batch = await self._run_lines(store, batch, running)
            if batch.status != "failed":
                batch = await self._finish(store, batch, running)
            log.info(
                "batch %s %s: %d of %d lines answered, %d failed",
                batch.id,
                batch.status,
                batch.request_counts.completed,
                batch.request_counts.total,
                batch.request_counts.failed,
            )
        except Exception:
            log.exception("batch %s stands still until the server is started again", batch.id)
        finally:
            self._running.pop(batch.id, None)

    async def _validate(self, store: Store, batch: Batch, running: _Running) -> Batch:
        file = await store.files.get(running.owner, batch.input_file_id)
        found: list[Pending] = []
        if file is None:
            errors = [BatchError(code="file_not_found", message="the input file is gone")]
        else:
            limits = self._app.settings.limits
            found, errors = await asyncio.to_thread(read, store.files.path(file), batch.endpoint, limits)

        def alter(now: Batch) -> None:
            if now.status == "cancelling":
                return
            if errors:
                now.status, now.failed_at = "failed", _time()
                now.errors = BatchErrors(data=errors)
            else:
                now.status, now.in_progress_at = "in_progress", _time()

        return await store.batches.add_lines(batch.id, [] if errors else found, alter)

    async def _run_lines(self, store: Store, batch: Batch, running: _Running) -> Batch:
        """Start line after line as places get free, until all are done or the batch is stopped."""
        file = await store.files.get(running.owner, batch.input_file_id)
        if file is None:
            raise FileNotFoundError(batch.input_file_id)
        tasks: set[asyncio.Task[None]] = set()
        timer = asyncio.get_running_loop().call_later(
            max(0.0, batch.expires_at - time.time()), self._expire, running
        )
        try:
            with store.files.path(file).open("rb") as source:
                for pending in await store.batches.pending(batch.id):
                    if not await self._place(running):
                        break
                    work = self._run_line(store, batch, running.owner, pending, source.fileno())
                    task = asyncio.create_task(work)
                    tasks.add(task)
                    task.add_done_callback(lambda done: self._line_done(done, tasks, running))
                await self._all_done(tasks, running)
        finally:
            timer.cancel()
            await end(*tasks)
        if running.broken is not None:
            raise running.broken

        def alter(now: Batch) -> None:
            if now.status == "in_progress" and running.stop is None:
                now.status, now.finalizing_at = "finalizing", _time()

        return await store.batches.change(batch.id, alter)

    async def _place(self, running: _Running) -> bool:
        """Wait for a place among the lines that run; False: the batch has been stopped meanwhile.

        While anybody waits for an answer over HTTP, one line at a time is run.
        """
        place = asyncio.ensure_future(self._slots.acquire())
        ended = asyncio.ensure_future(running.ended.wait())
        try:
            await asyncio.wait({place, ended}, return_when=asyncio.FIRST_COMPLETED)
            while self._num_lines and not self._app.admission.quiet and not running.ended.is_set():
                await self._may_go_on(ended)
            if not running.ended.is_set():
                self._num_lines += 1
                return True
            if place.done():
                self._slots.release()
            return False
        except BaseException:
            if place.done():
                self._slots.release()
            raise
        finally:
            await end(place, ended)

    async def _may_go_on(self, ended: asyncio.Future[Literal[True]]) -> None:
        """Until nobody waits for an answer over HTTP, a line is done, or the batch has been stopped."""
        quiet = asyncio.ensure_future(self._app.admission.until_quiet())
        done = asyncio.ensure_future(self._done.wait())
        try:
            first: set[asyncio.Future[Any]] = {ended, quiet, done}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(quiet, done)

    async def _all_done(self, tasks: set[asyncio.Task[None]], running: _Running) -> None:
        ended = asyncio.ensure_future(running.ended.wait())
        try:
            while tasks and not running.ended.is_set():
                await asyncio.wait({*tasks, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(ended)

    def _line_done(self, task: asyncio.Task[None], tasks: set[asyncio.Task[None]], running: _Running) -> None:
        tasks.discard(task)
        self._slots.release()
        self._num_lines -= 1
        self._done.set()
        self._done = asyncio.Event()
        if not task.cancelled() and (error := task.exception()) is not None:
            running.broken = error
            running.ended.set()

    def _expire(self, running: _Running) -> None:
        running.stop = running.stop or "expired"
        running.ended.set()

    async def _run_line(self, store: Store, batch: Batch, owner: str, pending: Pending, source: int) -> None:
        data = await asyncio.to_thread(os.pread, source, pending.length, pending.start)
        result, code = await lines.answer(self._app, lines.parse(data, batch.endpoint), owner)
        await store.batches.record(batch.id, pending.number, msgspec.json.encode(result), code is not None)

    async def _finish(self, store: Store, batch: Batch, running: _Running) -> Batch:
        """Make the files of a batch whose lines are done, or that was stopped."""
        stop = running.stop

        def alter(now: Batch) -> None:
            if now.status == "cancelling":
                now.status, now.cancelled_at = "cancelled", _time()
            elif stop == "expired":
                now.status, now.expired_at = "expired", _time()
            else:
                now.status, now.completed_at = "completed", _time()

        return await store.batches.finish(batch.id, alter, EXPIRED if stop == "expired" else None)


def read(
    path: Path, endpoint: str | None, limits: Limits, *, bounded: bool = True
) -> tuple[list[Pending], list[BatchError]]:
    """In a thread: where the lines of an input file are, and what is wrong with them.

    Gives up at the limit of lines and at `MAX_ERRORS`, if `bounded`.
    """
    most_lines, most_errors = (limits.batch_lines, MAX_ERRORS) if bounded else (sys.maxsize, sys.maxsize)
    found: list[Pending] = []
    errors: list[BatchError] = []
    seen: set[str] = set()
    with path.open("rb") as file:
        for number, start, data in _lines(file, limits.body_bytes + 4096):
            if len(found) == most_lines:
                errors.append(_error(number, "too_many_lines", f"a batch has at most {most_lines} lines"))
            if len(errors) >= most_errors or len(found) == most_lines:
                break
            try:
                line = lines.parse(data, endpoint)
                if line.custom_id in seen:
                    raise lines.WrongLine(
                        "duplicate_custom_id", "another line has this custom_id", "custom_id"
                    )
            except lines.WrongLine as wrong:
                wrong.error.line = number
                errors.append(wrong.error)
            else:
                seen.add(line.custom_id)
                found.append(Pending(number, line.custom_id, start, len(data)))
    if not found and not errors:
        errors.append(BatchError(code="empty_file", message="the input file has no lines"))
    return found, errors


def _lines(file: IO[bytes], most: int) -> Iterator[tuple[int, int, bytes]]:
    """Number from 1, offset and bytes of each line that is not blank; a longer one comes as its beginning."""
    number, start = 0, 0
    while data := file.readline(most):
        number += 1
        length = len(data)
        while data[-1:] != b"\n" and (rest := file.readline(most)):
            length += len(rest)
            if rest[-1:] == b"\n":
                break
        if data.strip():
            yield number, start, data
        start += length


def _error(number: int, code: str, message: str) -> BatchError:
    return BatchError(code=code, message=message, line=number)


def _time() -> int:
    return int(time.time())
