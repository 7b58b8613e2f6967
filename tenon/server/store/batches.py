"""Batches, and of each that runs its lines: where they are in the input file, and the results so far.

A line's result is written in one transaction with the batch's counts, and the files of a finished batch in
one with its status. So whenever the process ends, what is here is a state from which the batch can go on.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO

import msgspec

from tenon.server.schema.batches import Batch, LineError, LineResult, RequestCounts
from tenon.server.store.database import UNFINISHED, Database
from tenon.server.store.files import Files, page

_CHUNK = 1000  # rows at a time
_MARKS = ", ".join("?" * len(UNFINISHED))


@dataclass(frozen=True, slots=True)
class Pending:
    """A line that has no result yet."""

    number: int
    custom_id: str
    start: int
    length: int


class Batches:
    """The batches of all owners; each owner sees its own."""

    def __init__(self, database: Database, files: Files) -> None:
        self._database = database
        self._files = files
        self.keep_seconds: int | None = None  # results whose batch says nothing of it

    # --- batches

    async def add(self, owner: str, batch: Batch, most: int) -> bool:
        """False: the owner has as many that have not ended as it may have, and this one is not added."""

        def work(db: sqlite3.Connection) -> bool:
            open_ones = f"SELECT count(*) FROM batches WHERE owner = ? AND status IN ({_MARKS})"
            if db.execute(open_ones, (owner, *UNFINISHED)).fetchone()[0] >= most:
                return False
            db.execute(
                "INSERT INTO batches (id, owner, input_file_id, status, body) VALUES (?, ?, ?, ?, ?)",
                (batch.id, owner, batch.input_file_id, batch.status, msgspec.json.encode(batch)),
            )
            return True

        return await self._database.run(work)

    async def forget(self, before: float) -> int:
        """Forget the batches that ended before this time. Their files go by times of their own."""

        def work(db: sqlite3.Connection) -> int:
            ended = db.execute(f"SELECT * FROM batches WHERE status NOT IN ({_MARKS})", UNFINISHED)
            old = [(row["id"],) for row in ended if _ended_at(_batch(row)) < before]
            db.executemany("DELETE FROM batches WHERE id = ?", old)
            return len(old)

        return await self._database.run(work)

    async def get(self, batch_id: str, owner: str | None = None) -> Batch | None:
        """None: there is no such batch, or it is another owner's."""
        found = await self._database.run(lambda db: _find(db, batch_id))
        return None if found is None or owner not in (None, found[0]) else found[1]

    async def listed(self, owner: str, *, limit: int, after: str | None) -> tuple[list[Batch], bool] | None:
        """A page, newest first, and whether there is more; None: `after` is no batch of this owner."""
        rows = await self._database.run(lambda db: page(db, "batches", owner, limit, after, False))
        return None if rows is None else ([_batch(row) for row in rows[:limit]], len(rows) > limit)

    async def unfinished(self) -> list[tuple[str, Batch]]:
        """Owner and batch of all that are not at their end, in the order they were made."""
        rows = await self._database.run(
            lambda db: db.execute(
                f"SELECT * FROM batches WHERE status IN ({_MARKS}) ORDER BY seq", UNFINISHED
            ).fetchall()
        )
        return [(row["owner"], _batch(row)) for row in rows]

    async def user_of(self, file_id: str) -> str | None:
        """A batch that still reads this file."""
        return next((b.id for _, b in await self.unfinished() if b.input_file_id == file_id), None)

    async def change(self, batch_id: str, alter: Callable[[Batch], None]) -> Batch:
        """`alter` the batch, as it is now, in the database's thread."""

        def work(db: sqlite3.Connection) -> Batch:
            found = _find(db, batch_id)
            assert found is not None
            alter(found[1])
            _save(db, found[1])
            return found[1]

        return await self._database.run(work)

    # --- lines

    async def add_lines(
        self, batch_id: str, lines: Iterable[Pending], alter: Callable[[Batch], None]
    ) -> Batch:
        """All lines of a batch that has been validated, and what becomes of it."""

        def work(db: sqlite3.Connection) -> Batch:
            db.execute("DELETE FROM lines WHERE batch = ?", (batch_id,))
            db.executemany(
                "INSERT INTO lines (batch, number, custom_id, start, length) VALUES (?, ?, ?, ?, ?)",
                ((batch_id, line.number, line.custom_id, line.start, line.length) for line in lines),
            )
            db.execute(
                "UPDATE batches SET total = (SELECT count(*) FROM lines WHERE batch = id) WHERE id = ?",
                (batch_id,),
            )
            found = _find(db, batch_id)
            assert found is not None
            alter(found[1])
            _save(db, found[1])
            return found[1]

        return await self._database.run(work)

    async def pending(self, batch_id: str) -> list[Pending]:
        """Lines without a result, in the order of the input."""
        rows = await self._database.run(
            lambda db: db.execute(
                "SELECT number, custom_id, start, length FROM lines WHERE batch = ? AND result IS NULL "
                "ORDER BY number",
                (batch_id,),
            ).fetchall()
        )
        return [Pending(*row) for row in rows]

    async def record(self, batch_id: str, number: int, result: bytes, failed: bool) -> None:
        """The result of a line: once, for a line that has one keeps it."""

        def work(db: sqlite3.Connection) -> None:
            done = db.execute(
                "UPDATE lines SET result = ?, failed = ? WHERE batch = ? AND number = ? AND result IS NULL",
                (result, failed, batch_id, number),
            )
            column = "failed" if failed else "completed"
            db.execute(f"UPDATE batches SET {column} = {column} + ? WHERE id = ?", (done.rowcount, batch_id))

        await self._database.run(work)

    async def finish(self, batch_id: str, alter: Callable[[Batch], None], undone: LineError | None) -> Batch:
        """Make the output and error files, and `alter` the batch. Lines without result fail with `undone`."""

        def work(db: sqlite3.Connection) -> Batch:
            found = _find(db, batch_id)
            assert found is not None
            owner, batch = found
            if undone is not None:
                _fail_rest(db, batch_id, undone)
            batch.output_file_id = self._results(db, owner, batch, failed=False)
            batch.error_file_id = self._results(db, owner, batch, failed=True)
            db.execute("DELETE FROM lines WHERE batch = ?", (batch_id,))
            alter(batch)
            _save(db, batch)
            return _find(db, batch_id)[1]  # type: ignore[index]

        return await self._database.run(work)

    def _results(self, db: sqlite3.Connection, owner: str, batch: Batch, *, failed: bool) -> str | None:
        """Id of a new file with the results of one kind, in the order of the input; None: there are none."""
        rows = db.execute(
            "SELECT result FROM lines WHERE batch = ? AND failed = ? ORDER BY number", (batch.id, failed)
        )
        first = rows.fetchone()
        if first is None:
            return None

        def fill(out: IO[bytes]) -> None:
            out.write(first["result"] + b"\n")
            for row in _chunked(rows):
                out.write(row["result"] + b"\n")

        kind = "error" if failed else "output"
        expiry = batch.output_expires_after
        after = self.keep_seconds if expiry is None else expiry.seconds
        file = self._files.write(f"{batch.id}_{kind}.jsonl", "batch_output", fill, after)
        self._files.insert(db, owner, file)
        return file.id


def new_result(custom_id: str, **fields: object) -> LineResult:
    return LineResult(id=f"batch_req_{secrets.token_hex(16)}", custom_id=custom_id, **fields)  # type: ignore[arg-type]


def _fail_rest(db: sqlite3.Connection, batch_id: str, error: LineError) -> None:
    rest = db.execute(
        "SELECT number, custom_id FROM lines WHERE batch = ? AND result IS NULL", (batch_id,)
    ).fetchall()
    db.executemany(
        "UPDATE lines SET failed = 1, result = ? WHERE batch = ? AND number = ?",
        (
            (msgspec.json.encode(new_result(row["custom_id"], error=error)), batch_id, row["number"])
            for row in rest
        ),
    )
    db.execute("UPDATE batches SET failed = failed + ? WHERE id = ?", (len(rest), batch_id))


def _find(db: sqlite3.Connection, batch_id: str) -> tuple[str, Batch] | None:
    row = db.execute("SELECT * FROM batches WHERE id = ?", (batch_id,)).fetchone()
    return (row["owner"], _batch(row)) if row else None


def _batch(row: sqlite3.Row) -> Batch:
    batch = msgspec.json.decode(row["body"], type=Batch)
    batch.request_counts = RequestCounts(total=row["total"], completed=row["completed"], failed=row["failed"])
    return batch


def _ended_at(batch: Batch) -> int:
    times = (batch.completed_at, batch.failed_at, batch.expired_at, batch.cancelled_at)
    return max((time for time in times if time is not None), default=batch.created_at)


def _save(db: sqlite3.Connection, batch: Batch) -> None:
    db.execute(
        "UPDATE batches SET status = ?, body = ? WHERE id = ?",
        (batch.status, msgspec.json.encode(batch), batch.id),
    )


def _chunked(rows: sqlite3.Cursor) -> Iterator[sqlite3.Row]:
    while chunk := rows.fetchmany(_CHUNK):
        yield from chunk
