"""/v1/files: what clients upload for batches, and what batches have made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING

from tenon.server.call import Call
from tenon.server.contract import answers
from tenon.server.errors import ApiError, bad_request
from tenon.server.listing import check_limit, page
from tenon.server.schema.files import FileDeleted, FileForm, FileList, FileQuery, StoredFile

if TYPE_CHECKING:
    from starlette.datastructures import FormData

FORM_BYTES = 64 * 1024  # of a form, besides the file
MAX_NAME = 255
MAX_PAGE = 10_000
MIN_EXPIRY, MAX_EXPIRY = 3600, 30 * 24 * 3600  # seconds, as OpenAI has them
_PART_BYTES = 256 * 1024
NO_STORE = {503: "files and batches are not available: the server has no place to keep them"}


@answers(StoredFile, form=FileForm, statuses=NO_STORE)
async def create(call: Call, form: FormData) -> None:
    """Upload a file for batches."""
    from starlette.datastructures import UploadFile

    upload, purpose = form.get("file"), form.get("purpose")
    if not isinstance(upload, UploadFile):
        raise bad_request(
            "file must be a file", "file", "missing_field" if upload is None else "invalid_value"
        )
    if purpose != "batch":
        raise bad_request("purpose must be 'batch': files have no other use here", "purpose")
    limits = call.app.settings.limits
    if (upload.size or 0) > limits.file_bytes:
        raise _too_big(f"the file is larger than the limit of {limits.file_bytes} bytes", "file_too_large")
    name, expiry, most = _name(upload.filename or "upload"), _expiry(form), limits.stored_bytes
    store = await call.app.archive.store()
    file = None
    if (
        await store.files.total_bytes() + (upload.size or 0) <= most
    ):  # before it is copied; others may be, too
        file = await store.files.add(call.caller, name, "batch", upload.file, expiry, most)
    if file is None:
        raise storage_full(most)
    await call.send_json(file)


@answers(FileList, query=FileQuery, statuses=NO_STORE)
async def list_files(call: Call) -> None:
    """The caller's files."""
    query = call.query(FileQuery)
    check_limit(query.limit, MAX_PAGE)
    if query.order not in ("asc", "desc"):
        raise bad_request("order must be asc or desc", "order")
    store = await call.app.archive.store()
    found = await store.files.listed(
        call.caller,
        purpose=query.purpose,
        limit=query.limit,
        after=query.after,
        ascending=query.order == "asc",
    )
    if found is None:
        raise bad_request(f"there is no file {query.after!r} here", "after")
    await call.send_json(page(FileList, *found))


@answers(StoredFile, statuses=NO_STORE)
async def get_file(call: Call) -> None:
    """What is known of a file."""
    await call.send_json((await find(call, call.path("id")))[0])


@answers(content_types=("application/octet-stream",), statuses=NO_STORE)
async def get_content(call: Call) -> None:
    """What is in a file."""
    file, path = await find(call, call.path("id"))
    await call.send_parts(_parts(path), "application/octet-stream", file.bytes)


@answers(FileDeleted, statuses=NO_STORE | {409: "a batch still reads the file"})
async def delete_file(call: Call) -> None:
    """Delete a file."""
    file, _ = await find(call, call.path("id"))
    store = await call.app.archive.store()
    if (user := await store.batches.user_of(file.id)) is not None:
        raise ApiError(409, f"the batch {user} still reads this file: cancel it first", code="file_in_use")
    if await store.files.delete(call.caller, file.id) is None:
        raise _not_found(file.id)
    await call.send_json(FileDeleted(id=file.id))


async def find(call: Call, file_id: str, param: str = "id") -> tuple[StoredFile, Path]:
    """A file of the caller, and where it is. Raises 404 naming the field that says which."""
    store = await call.app.archive.store()
    if (file := await store.files.get(call.caller, file_id)) is None:
        raise _not_found(file_id, param)
    return file, store.files.path(file)


async def _parts(path: Path) -> AsyncGenerator[bytes, None]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while part := await asyncio.to_thread(file.read, _PART_BYTES):
            yield part


def _name(name: str) -> str:
    """The name that is shown; it is never a path."""
    if len(name) > MAX_NAME or not name.isprintable():
        raise bad_request(f"the file's name must have at most {MAX_NAME} characters that print", "file")
    return name


def _expiry(form: FormData) -> int | None:
    """Seconds of `expires_after`, if it was given."""
    anchor, seconds = form.get("expires_after[anchor]"), form.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if not isinstance(seconds, str) or not seconds.isascii() or not seconds.isdigit() or len(seconds) > 10:
        raise bad_request("expires_after.seconds must be a whole number", "expires_after.seconds")
    return check_expiry(anchor, int(seconds), "expires_after")


def check_expiry(anchor: object, seconds: int, where: str) -> int:
    """Raises ApiError(400)."""
    if anchor != "created_at":
        raise bad_request(f"{where}.anchor must be 'created_at'", f"{where}.anchor")
    if not MIN_EXPIRY <= seconds <= MAX_EXPIRY:
        raise bad_request(
            f"{where}.seconds must be between {MIN_EXPIRY} and {MAX_EXPIRY}", f"{where}.seconds"
        )
    return seconds


def _not_found(file_id: str, param: str = "id") -> ApiError:
    return ApiError(404, f"there is no file {file_id[:100]!r} here", param=param, code="file_not_found")


def storage_full(most: int) -> ApiError:
    return _too_big(
        f"the server keeps at most {most} bytes of files and batches: delete some", "storage_full"
    )


def _too_big(message: str, code: str) -> ApiError:
    return ApiError(413, message, param="file", code=code)
