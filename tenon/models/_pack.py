"""From a model's files to a packed model, which starts without packing (`tenon.formats.packed`)."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tenon import ops
from tenon.core import ggml
from tenon.core.files import ModelFiles
from tenon.errors import ConfigError
from tenon.formats.gguf import open_gguf
from tenon.formats.packed import FILE_NAME, METADATA_NAME, PackedWriter, SourceFile, Table, Tensor
from tenon.formats.shards import INDEX_NAME
from tenon.formats.writing import gguf_layout
from tenon.layers.stored import RecordedWeights
from tenon.models._checkpoint import Checkpoint, open_checkpoint
from tenon.models._load import DTYPES, open_weights, read_family, read_spec

Progress = Callable[[int, int], None]

_BESIDE = {".json", ".jinja", ".txt", ".model"}  # suffixes of what a model has beside its weights
_SMALL = (
    1 << 20
)  # bytes of a tensor that is kept although no layer asks for it: it may belong to the configuration


def pack_model(
    files: ModelFiles,
    out: Path,
    dtype: str = "auto",
    quantization: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Make the directory `out`. Raises what `load_model` raises, and ConfigError if there is something."""
    if dtype not in DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    if files.kind == "packed":
        raise ConfigError(f"{files.directory} is packed already")
    if out.exists():
        raise ConfigError(f"{out} exists already")
    checkpoint = open_checkpoint(files)
    try:
        out.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"cannot make the directory {out}: {error.strerror}") from None
    try:
        _copy_what_is_beside(files, out)
        writer = PackedWriter(out / FILE_NAME)
        _write(checkpoint, writer, files, DTYPES[dtype], quantization, progress)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return out


def _write(
    checkpoint: Checkpoint,
    writer: PackedWriter,
    files: ModelFiles,
    dtype: str,
    quantization: str | None,
    progress: Progress | None,
) -> None:
    """Build the model once, over weights that are written instead of kept."""
    family, config = read_family(checkpoint)
    make = partial(RecordedWeights, writer)
    weights = open_weights(checkpoint, family, config, dtype, quantization, make=make, progress=progress)
    assert isinstance(weights, RecordedWeights)
    weights.ignore(family.IGNORED)
    spec = read_spec(checkpoint, family, config, dtype)
    family.MODEL(config, spec, weights, spec.max_position)
    weights.check_all_used()
    packed_names = set(" ".join(weights.packed).split(" "))
    tensors = {}
    for name, info in checkpoint.file.tensors.items():
        if name not in packed_names and info.dtype in ggml.BLOCKS and info.length <= _SMALL:
            weights.store(info.raw())
        tensors[name] = weights.stored.get(name) or Tensor(info.dtype, info.shape or (1,))
    writer.finish(
        Table(
            kind=checkpoint.kind,
            layout=ops.packed_layout(),
            dtype=dtype,
            quantization=quantization,
            made_by=f"tenon {_version()}",
            source=tuple(_fingerprint(path) for path in files.paths),
            tensors=tensors,
            packed=weights.packed,
        )
    )


def _copy_what_is_beside(files: ModelFiles, out: Path) -> None:
    """Configuration, tokenizer and chat template: the packed model needs nothing of its source."""
    if files.kind == "gguf":
        metadata = open_gguf(files.paths).metadata
        layout = gguf_layout({key: metadata.encoded(key) for key in metadata}, [])
        (out / METADATA_NAME).write_bytes(layout.header)
        return
    for path in [*files.directory.iterdir(), *files.directory.glob("*/*.json")]:
        if path.suffix in _BESIDE and path.name != INDEX_NAME and path.is_file():
            target = out / path.relative_to(files.directory)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)


def _fingerprint(path: Path) -> SourceFile:
    with path.open("rb") as file:
        return SourceFile(path.name, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _version() -> str:
    try:
        return version("tenon")
    except PackageNotFoundError:
        return "from a source tree"
