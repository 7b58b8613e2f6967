"""The files of one model on this machine, as `tenon.resolve` found them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where a model's files are. `kind` is "gguf" (a file, or the parts of one), "hf" (a directory) or
    "packed" (a directory made by `tenon pack`).

    `paths` are the weight files in order: the GGUF parts, the safetensors shards (none when an HF directory
    holds only a tokenizer), or the packed file. Nothing is opened here.
    """

    kind: str
    paths: tuple[Path, ...]
    name: str  # for people and for /v1/models: the name that was asked for, without directories
    directory: Path
    revision: str | None = None  # of a hub repository, as it was asked for

    @property
    def path(self) -> Path:
        """What identifies the model: the (first) GGUF file, or the HF directory."""
        return self.paths[0] if self.kind == "gguf" else self.directory
