"""An engine in this process, for the commands that answer in the terminal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tenon.cli.terminal import working
from tenon.config import EngineArgs
from tenon.engine.async_engine import AsyncEngine


@asynccontextmanager
async def started(args: EngineArgs) -> AsyncIterator[AsyncEngine]:
    """A started engine; stopped at the end. Raises TenonError."""
    from tenon.engine.client import InProcessClient

    config = args.resolve()
    engine = AsyncEngine(config, InProcessClient(config))
    with working(f"loading {engine.model_name}"):
        await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()
