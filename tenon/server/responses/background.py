"""Responses that are written whether anybody listens or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from tenon.server.call import Call
from tenon.server.errors import as_api_error
from tenon.server.responses.store import Kept
from tenon.server.schema.responses import LAST, Error, Event, Failed, Problem


def start(call: Call, kept: Kept, stream: AsyncGenerator[Event, None]) -> None:
    """`call` is the response's own: it is closed when the response has ended, however it ends."""
    kept.task = asyncio.ensure_future(_run(call, kept, stream))
    kept.task.add_done_callback(partial(_ended, call, kept))


async def cancel(kept: Kept) -> None:
    """End it unless it has ended."""
    if kept.task is not None:
        task = kept.task
        task.cancel()
        await asyncio.wait({task})


async def _run(call: Call, kept: Kept, stream: AsyncGenerator[Event, None]) -> None:
    try:
        await call.supervise(_write(kept, stream))
        call.log_end("in the background")
    except Exception as error:
        await call.fail(error)
        if not (kept.log and isinstance(kept.log[-1], LAST)):
            problem = as_api_error(error, call.request_id)
            kept.response.status = "failed"
            kept.response.error = Problem("server_error", problem.message)
            kept.write(Failed(sequence_number=len(kept.log), response=kept.response))


async def _write(kept: Kept, stream: AsyncGenerator[Event, None]) -> None:
    async with aclosing(stream):
        async for event in stream:
            kept.write(event)


def _ended(call: Call, kept: Kept, task: asyncio.Task[None]) -> None:
    if task.cancelled():
        call.log_end("cancelled")
        kept.response.status = "cancelled"
        # The API has no event for this end; a stream must not just stop.
        number = len(kept.log)
        message = "the response was cancelled"
        kept.write(Error(sequence_number=number, code="response_cancelled", message=message, param=None))
    kept.task = None
    kept.wake()
    call.close()
    call.app.responses.trim()
