"""/v1/batches: many requests in a file, answered in the background (see `executor`)."""

from __future__ import annotations

import re
import secrets
import time

from tenon.server.call import Call
from tenon.server.contract import answers
from tenon.server.errors import ApiError, bad_request
from tenon.server.files import NO_STORE, check_expiry, find, storage_full
from tenon.server.line import ENDPOINTS
from tenon.server.listing import check_limit, page
from tenon.server.metadata import check_metadata
from tenon.server.schema.batches import Batch, BatchList, BatchQuery, BatchRequest, RequestCounts

_WINDOW = re.compile(r"([1-9][0-9]{0,5})([mhd])")
_SECONDS = {"m": 60, "h": 3600, "d": 86400}
LONGEST_WINDOW = 30 * 86400
MAX_PAGE = 100


@answers(Batch, statuses=NO_STORE)
async def create(call: Call, request: BatchRequest) -> None:
    """Begin to answer the requests in a file."""
    if request.endpoint not in ENDPOINTS:
        raise bad_request(f"endpoint must be one of {', '.join(ENDPOINTS)}", "endpoint")
    window = _window(request.completion_window)
    check_metadata(request.metadata)
    if (expiry := request.output_expires_after) is not None:
        check_expiry(expiry.anchor, expiry.seconds, "output_expires_after")
    file, _ = await find(call, request.input_file_id, "input_file_id")
    if file.purpose != "batch":
        raise bad_request(f"{file.id} is no input of a batch: its purpose is {file.purpose}", "input_file_id")
    now = int(time.time())
    batch = Batch(
        id=f"batch_{secrets.token_hex(16)}",
        endpoint=request.endpoint,
        input_file_id=file.id,
        completion_window=request.completion_window,
        status="validating",
        created_at=now,
        expires_at=now + window,
        request_counts=RequestCounts(),
        metadata=request.metadata,
        output_expires_after=expiry,
    )
    store = await call.app.archive.store()
    limits = call.app.settings.limits
    if await store.files.total_bytes() >= limits.stored_bytes:
        raise storage_full(limits.stored_bytes)
    if not await call.app.archive.executor.create(store, call.caller, batch):
        raise ApiError(
            429,
            f"this key has {limits.key_batches} batches that have not ended: wait for one, or cancel one",
            kind="rate_limit_error",
            code="too_many_batches",
            headers={"retry-after": "60"},
        )
    await call.send_json(batch)


@answers(BatchList, query=BatchQuery, statuses=NO_STORE)
async def list_batches(call: Call) -> None:
    """The caller's batches."""
    query = call.query(BatchQuery)
    check_limit(query.limit, MAX_PAGE)
    store = await call.app.archive.store()
    found = await store.batches.listed(call.caller, limit=query.limit, after=query.after)
    if found is None:
        raise bad_request(f"there is no batch {query.after!r} here", "after")
    await call.send_json(page(BatchList, *found))


@answers(Batch, statuses=NO_STORE)
async def get_batch(call: Call) -> None:
    """How far a batch has come."""
    await call.send_json(await _find(call))


@answers(Batch, statuses=NO_STORE | {409: "the batch has ended"})
async def cancel(call: Call) -> None:
    """Cancel a batch; what has been answered is kept."""
    batch = await _find(call)
    store = await call.app.archive.store()
    batch = await call.app.archive.executor.cancel(store, call.caller, batch.id)
    if batch.status not in ("cancelling", "cancelled"):
        raise ApiError(409, f"this batch is {batch.status} and cannot be cancelled", code="batch_not_running")
    await call.send_json(batch)


async def _find(call: Call) -> Batch:
    store = await call.app.archive.store()
    batch_id = call.path("id")
    if (batch := await store.batches.get(batch_id, call.caller)) is None:
        raise ApiError(404, f"there is no batch {batch_id[:100]!r} here", param="id", code="batch_not_found")
    return batch


def _window(text: str) -> int:
    """Seconds. OpenAI knows 24h only."""
    match = _WINDOW.fullmatch(text)
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    if not 0 < seconds <= LONGEST_WINDOW:
        raise bad_request(
            "completion_window must be like 24h, 90m or 7d, and at most 30d", "completion_window"
        )
    return seconds
