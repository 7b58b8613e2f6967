"""Bodies of /v1/files."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, field


class FileForm(msgspec.Struct, kw_only=True):
    """The form of an upload. It describes what `files.create` reads; nothing is decoded to it."""

    file: Annotated[str, Meta(extra_json_schema={"format": "binary"})]
    purpose: Literal["batch"]
    expiry_anchor: Literal["created_at"] = field(name="expires_after[anchor]", default="created_at")
    expiry_seconds: int | UnsetType = field(name="expires_after[seconds]", default=UNSET)


class StoredFile(msgspec.Struct, kw_only=True):
    id: str
    object: str = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: str
    status: str = "processed"


class FileList(msgspec.Struct, kw_only=True):
    object: str = "list"
    data: list[StoredFile]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(msgspec.Struct, kw_only=True):
    id: str
    object: str = "file"
    deleted: bool = True


class FileQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Of the list."""

    purpose: str | None = None
    limit: int = 10_000
    order: str = "desc"
    after: str | None = None
