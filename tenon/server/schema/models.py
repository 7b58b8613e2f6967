"""Bodies of /v1/models."""

from __future__ import annotations

import msgspec


class ModelCard(msgspec.Struct, kw_only=True):
    id: str
    created: int
    max_model_len: int | None
    root: str
    state: str  # unloaded, loading, loaded, unloading or failed
    object: str = "model"
    owned_by: str = "tenon"
    parent: str | None = None


class ModelList(msgspec.Struct, kw_only=True):
    data: list[ModelCard]
    object: str = "list"
