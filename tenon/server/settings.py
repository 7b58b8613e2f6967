"""What the HTTP server is told at start, apart from the engine's own arguments."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tenon.server.limits import Limits


def digest(key: str) -> bytes:
    """SHA-256 of an API key; the server keeps only this, so the key can never be printed."""
    return hashlib.sha256(key.encode()).digest()


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`api_keys` holds digests; empty means that no key is asked for.

    `default_sampling` are SamplingParams fields used where a request says nothing (from the model's
    generation_config, if the operator chose that). `drain_seconds`: how long requests in flight may go
    on after a stop signal. `output_format` is a name of tenon.parse.formats, or auto; `reasoning_content`
    sends reasoning under that name too; `template_variables` may be set by requests besides the usual ones.
    `limits` bound what clients may send and what is kept for them. `data_dir` keeps files and batches (None:
    below TENON_HOME); `batch_concurrency`: so many lines of batches run at a time.
    """

    api_keys: tuple[bytes, ...] = field(default=(), repr=False)
    limits: Limits = field(default_factory=Limits)
    default_sampling: dict[str, Any] = field(default_factory=dict)
    drain_seconds: float = 10.0
    share_prefix_cache: bool = False
    output_format: str = "auto"
    reasoning_content: bool = False
    template_variables: tuple[str, ...] = ()
    data_dir: Path | None = None
    batch_concurrency: int = 8

    @classmethod
    def with_keys(cls, keys: list[str] | tuple[str, ...], **rest: Any) -> ServerSettings:
        return cls(api_keys=tuple(digest(key) for key in keys), **rest)


@dataclass(frozen=True, slots=True)
class ResidencySettings:
    """Of several models: how many, and how many bytes of weights and KV caches, are loaded at a time (None:
    all, and what memory allows), and how long a request waits for its model."""

    max_models: int | None = None
    max_bytes: int | None = None
    wait_seconds: float = 120.0
