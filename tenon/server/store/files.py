"""Files: a row each, and their bytes under their id. Names that clients give are never part of a path."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from tenon.server.schema.files import StoredFile
from tenon.server.store.database import UNFINISHED, Database

_FIELDS = tuple(name for name in StoredFile.__struct_fields__ if name not in ("object", "status"))


class Files:
    """The files of all owners; each owner sees its own."""

    def __init__(self, database: Database, directory: Path) -> None:
        self._database = database
        self._directory = directory

    def path(self, file: StoredFile) -> Path:
        """Where the bytes are."""
        return self._directory / file.id

    async def add(
        self,
        owner: str,
        filename: str,
        purpose: str,
        source: IO[bytes],
        expires_after: int | None = None,
        most: int | None = None,
    ) -> StoredFile | None:
        """Keep what `source` holds; None where all that is kept would be over `most` bytes."""
        file = await asyncio.to_thread(
            self.write,
            filename,
            purpose,
            lambda out: shutil.copyfileobj(source, out, 1 << 20),
            expires_after,
        )

        def work(db: sqlite3.Connection) -> bool:
            fits = most is None or _total(db) + file.bytes <= most
            if fits:
                self.insert(db, owner, file)
            return fits

        if await self._database.run(work):
            return file
        self.path(file).unlink()
        return None

    def write(
        self,
        filename: str,
        purpose: str,
        fill: Callable[[IO[bytes]], object],
        expires_after: int | None = None,
    ) -> StoredFile:
        """In a thread: the bytes of a new file. It is nobody's before it is inserted."""
        file_id = f"file-{secrets.token_hex(16)}"
        part = self._directory / f"{file_id}.part"
        try:
            with part.open("xb") as out:
                fill(out)
                out.flush()
                os.fsync(out.fileno())
                size = out.tell()
            part.rename(self._directory / file_id)
        finally:
            part.unlink(missing_ok=True)
        now = int(time.time())
        return StoredFile(
            id=file_id,
            bytes=size,
            created_at=now,
            expires_at=None if expires_after is None else now + expires_after,
            filename=filename,
            purpose=purpose,
        )

    def insert(self, db: sqlite3.Connection, owner: str, file: StoredFile) -> None:
        """In the database's thread: from now on the file is there."""
        db.execute(
            f"INSERT INTO files (owner, {', '.join(_FIELDS)}) VALUES (?, {', '.join('?' * len(_FIELDS))})",
            (owner, *(getattr(file, name) for name in _FIELDS)),
        )

    async def get(self, owner: str, file_id: str) -> StoredFile | None:
        """None: there is no such file of this owner."""

        def work(db: sqlite3.Connection) -> StoredFile | None:
            self._forget_expired(db)
            row = db.execute("SELECT * FROM files WHERE id = ? AND owner = ?", (file_id, owner)).fetchone()
            return _file(row) if row else None

        return await self._database.run(work)

    async def listed(
        self, owner: str, *, purpose: str | None, limit: int, after: str | None, ascending: bool
    ) -> tuple[list[StoredFile], bool] | None:
        """A page, and whether there is more; None: `after` is no file of this owner."""

        def work(db: sqlite3.Connection) -> tuple[list[StoredFile], bool] | None:
            self._forget_expired(db)
            rows = page(
                db, "files", owner, limit, after, ascending, *(("purpose = ?", purpose) if purpose else ())
            )
            return None if rows is None else ([_file(row) for row in rows[:limit]], len(rows) > limit)

        return await self._database.run(work)

    async def delete(self, owner: str, file_id: str) -> StoredFile | None:
        def work(db: sqlite3.Connection) -> StoredFile | None:
            row = db.execute(
                "DELETE FROM files WHERE id = ? AND owner = ? RETURNING *", (file_id, owner)
            ).fetchone()
            return _file(row) if row else None

        if (file := await self._database.run(work)) is not None:
            self.path(file).unlink(missing_ok=True)
        return file

    async def total_bytes(self) -> int:
        """Of all owners' files, and of batches and the results of their lines so far."""
        return await self._database.run(_total)

    async def sweep(self) -> None:
        """Remove what a crash has left: bytes without a row, halves of files."""

        def work(db: sqlite3.Connection) -> set[str]:
            self._forget_expired(db)
            return {row["id"] for row in db.execute("SELECT id FROM files")}

        known = await self._database.run(work)
        _unlink(path for path in self._directory.iterdir() if path.name not in known)

    def _forget_expired(self, db: sqlite3.Connection) -> None:
        marks = ", ".join("?" * len(UNFINISHED))
        gone = db.execute(
            "DELETE FROM files WHERE expires_at <= ? AND id NOT IN "
            f"(SELECT input_file_id FROM batches WHERE status IN ({marks})) RETURNING id",
            (int(time.time()), *UNFINISHED),
        )
        _unlink(self._directory / row["id"] for row in gone.fetchall())


def page(
    db: sqlite3.Connection,
    table: str,
    owner: str,
    limit: int,
    after: str | None,
    ascending: bool,
    condition: str = "1",
    *values: object,
) -> list[sqlite3.Row] | None:
    """Up to `limit` + 1 rows of an owner behind `after`, in the order of making; None: no such `after`."""
    sign, order = (">", "ASC") if ascending else ("<", "DESC")
    start = -1 if ascending else 2**62
    if after is not None:
        row = db.execute(f"SELECT seq FROM {table} WHERE id = ? AND owner = ?", (after, owner)).fetchone()
        if row is None:
            return None
        start = row["seq"]
    return db.execute(
        f"SELECT * FROM {table} WHERE owner = ? AND seq {sign} ? AND {condition} "
        f"ORDER BY seq {order} LIMIT ?",
        (owner, start, *values, limit + 1),
    ).fetchall()


def _total(db: sqlite3.Connection) -> int:
    sums = ("sum(bytes) FROM files", "sum(length(body)) FROM batches", "sum(length(result)) FROM lines")
    return sum(db.execute(f"SELECT {total}").fetchone()[0] or 0 for total in sums)


def _file(row: sqlite3.Row) -> StoredFile:
    return StoredFile(**{name: row[name] for name in _FIELDS})


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
