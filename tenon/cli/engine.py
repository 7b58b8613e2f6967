"""An engine in this process, for the commands that answer in the terminal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tenon.config import EngineArgs
from tenon.engine.async_engine import AsyncEngine
from tenon.util.terminal import loading


@asynccontextmanager
async def started(args: EngineArgs) -> AsyncIterator[AsyncEngine]:
    """A started engine; stopped at the end. A model of the catalogue is pulled first. Raises TenonError."""
    from tenon.cli.models import ensure_here
    from tenon.engine.client import InProcessClient

    config = args.resolve()
    if config.load_format != "oracle":
        ensure_here(config.model, config.revision)
    with loading(config.served_model_name[0]) as on_loading:
        engine = AsyncEngine(config, InProcessClient(config, on_loading))
        await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()
