"""The data directory as the app uses it: opened when something is kept or found there."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from tenon import env
from tenon.errors import ConfigError
from tenon.server.errors import ApiError, shutting_down

if TYPE_CHECKING:
    from tenon.server.app import App
    from tenon.server.executor import Executor
    from tenon.server.store.store import Store

log = logging.getLogger("tenon.server")


class Archive:
    """The store, and the executor that runs its batches. SQLite is not even imported before it is needed."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._directory = app.settings.data_dir or env.data_dir()
        self._opening = asyncio.Lock()
        self._store: Store | None = None
        self._executor: Executor | None = None
        self._stopped = False

    @property
    def executor(self) -> Executor:
        """Once there is a store."""
        assert self._executor is not None
        return self._executor

    async def store(self) -> Store:
        """Opens the directory, and carries on what it holds. Raises ApiError(503) where it cannot."""
        try:
            return await self._open()
        except ConfigError as error:
            raise ApiError(
                503, f"files and batches are not available: {error}", kind="server_error", code="no_data_dir"
            ) from None

    async def resume(self) -> None:
        """At start-up: batches that a former server has left are carried on.

        Raises ConfigError for a directory that was asked for and cannot be used. The usual one may belong to
        another server; whoever asks this one for files is told so.
        """
        if self._app.settings.data_dir is None and not (self._directory / "tenon.sqlite").exists():
            return
        try:
            await self._open()
        except ConfigError as error:
            if self._app.settings.data_dir is not None:
                raise
            log.warning("no files and batches: %s", error)

    async def forget(self) -> None:
        """Let go of batches that ended long ago."""
        if self._store is not None:
            kept = self._app.settings.limits.batch_seconds
            if count := await self._store.batches.forget(time.time() - kept):
                log.info("%d batches that ended more than %g days ago are forgotten", count, kept / 86400)

    async def stop(self) -> None:
        """Leave batches as they are in the store. May be called again."""
        self._stopped = True
        async with self._opening:
            if self._executor is not None:
                await self._executor.stop()

    async def close(self) -> None:
        """After the last request."""
        await self.stop()
        if self._store is not None:
            await asyncio.to_thread(self._store.close)
            self._store = None

    async def _open(self) -> Store:
        async with self._opening:
            if self._store is None:
                if self._stopped:
                    raise shutting_down()
                from tenon.server.executor import Executor
                from tenon.server.store.store import Store

                self._store = await asyncio.to_thread(Store, self._directory)
                self._executor = Executor(self._app, self._app.settings.batch_concurrency)
                self._store.batches.keep_seconds = int(self._app.settings.limits.batch_seconds)
                await self._store.files.sweep()
                await self.forget()
                await self._executor.resume(self._store)
            return self._store
