"""From files to a model that runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import msgspec
import numpy as np

from tenon import ops
from tenon.config import LINEAR_ACTIVATIONS
from tenon.core.files import ModelFiles
from tenon.core.pooling import Pooler
from tenon.core.spec import Model, ModelSpec, PoolingModel
from tenon.errors import ConfigError, ModelFileError, UnsupportedModel
from tenon.formats.packed import PackedFile
from tenon.layers.linear import linear_scheme
from tenon.layers.stored import StoredWeights
from tenon.layers.weights import Progress, Weights
from tenon.models._checkpoint import Checkpoint, open_checkpoint
from tenon.models._fields import MAX_POSITIONS
from tenon.models._pooling import longest_input, pooling_spec
from tenon.util import plugin

_AS_FILES_SAY = Pooler()
DTYPES = {"auto": "bfloat16", "bfloat16": "bfloat16", "float32": "float32"}


def load_model(
    files: ModelFiles,
    dtype: str = "auto",
    *,
    activations: str = "auto",
    quantization: str | None = None,
    max_model_len: int | None = None,
    convert: str = "auto",
    pooler: Pooler = _AS_FILES_SAY,
    model_impl: str = "auto",
    in_place: bool = True,
    progress: Progress | None = None,
) -> Model | PoolingModel:
    """Load the model in `files`.

    `dtype` is that of activations and KV: "bfloat16" (also "auto") or "float32". `activations` is what
    meets group-quantised weights, for bfloat16: "bfloat16", "int8", "int16", or "auto", the fastest here
    of those with all of bfloat16's accuracy.
    `quantization` ("int8" or "int4") says what weights become that are floats in the files; see
    `tenon.core.quantize`. No position at or above `max_model_len` (default: the model's context length) may
    be asked of the model. `convert` and `pooler` are the engine arguments: with them, or by its architecture,
    the model may become a PoolingModel. With `in_place` weights that the files have as kernels read them are
    used there, else packed into memory of their own: the bits are the same. `progress(done, total)` is
    called with bytes of weights. With `model_impl` "transformers" that library reads and runs it
    (tenon.models._fallback): all but `dtype` and `max_model_len` is for tenon's own models.

    Raises ModelFileError, naming file and tensor or field, for files that are malformed or do not fit
    together; UnsupportedModel for what tenon does not do; ConfigError for wrong arguments.
    """
    if model_impl == "transformers":
        from tenon.models._fallback import load_fallback

        return load_fallback(files, dtype, max_model_len)
    checkpoint = open_checkpoint(files)
    dtype = _dtype(dtype, checkpoint)
    family, config = read_family(checkpoint)
    spec = read_spec(checkpoint, family, config, dtype, convert, pooler)
    spec = replace(spec, act_bits=_act_bits(activations, dtype))
    num_positions = max_model_len or spec.max_position
    if num_positions > spec.max_position:
        raise ConfigError(
            f"max_model_len {max_model_len} is more than the {spec.max_position} positions of {files.name}"
        )
    weights = open_weights(
        checkpoint,
        family,
        config,
        dtype,
        quantization,
        act_bits=spec.act_bits,
        in_place=in_place,
        progress=progress,
    )
    weights.ignore(family.IGNORED)
    model: Model | PoolingModel = family.MODEL(config, spec, weights, num_positions)
    weights.check_all_used()
    model.spec = replace(
        model.spec, mapped_bytes=weights.mapped_bytes, stored=weights.kept_as(checkpoint.quant)
    )
    return model


def _dtype(asked: str, checkpoint: Checkpoint) -> str:
    """The type of activations. Raises ConfigError for one that packed weights are not for."""
    if asked not in DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, not {asked!r}")
    if not isinstance(checkpoint.file, PackedFile):
        return DTYPES[asked]
    packed = checkpoint.file.table.dtype
    if packed not in DTYPES.values():
        raise ModelFileError(f"{checkpoint.file.path}: packed for dtype {packed!r}, which there is not")
    if asked not in ("auto", packed):
        raise ConfigError(f"{checkpoint.file.path} was packed for dtype {packed}: leave dtype out")
    return packed


def read_family(checkpoint: Checkpoint) -> tuple[ModuleType, Any]:
    """The module of a checkpoint's family, and its configuration."""
    family = _family(checkpoint)
    return family, family.read_config(checkpoint)


def read_spec(
    checkpoint: Checkpoint,
    family: ModuleType,
    config: Any,
    dtype: str,
    convert: str = "auto",
    pooler: Pooler = _AS_FILES_SAY,
) -> ModelSpec:
    """What the engine must know, but for what it multiplies with."""
    spec: ModelSpec = config.spec(family.__name__.rpartition(".")[2], checkpoint.eos_token_ids, dtype)
    if spec.max_position > MAX_POSITIONS:
        raise checkpoint.fields.error("rope", f"stretches the context to more than {MAX_POSITIONS} positions")
    if (last := max(spec.eos_token_ids, default=0)) >= spec.vocab_size:
        raise checkpoint.fields.error("eos_token_id", f"{last} is not one of {spec.vocab_size} tokens")
    pooling = pooling_spec(checkpoint, family, config.width, convert, pooler)
    if pooling is None:
        return spec
    pooling = msgspec.structs.replace(pooling, num_token_types=getattr(config, "num_types", 1))
    return replace(spec, pooling=pooling, max_position=longest_input(checkpoint, spec.max_position))


def open_weights(
    checkpoint: Checkpoint,
    family: ModuleType,
    config: Any,
    dtype: str,
    quantization: str | None,
    *,
    make: Callable[..., Weights] = Weights,
    act_bits: int = 0,
    in_place: bool = False,
    progress: Progress | None = None,
) -> Weights:
    """The tensors of a checkpoint under the names of its family. `make` says what sort of Weights they are,
    unless they are packed."""
    if isinstance(checkpoint.file, PackedFile):
        _check_packed(checkpoint.file, quantization)
        make, quantization = StoredWeights, None
    gguf = checkpoint.kind == "gguf"
    scheme = linear_scheme(checkpoint.quant, checkpoint.quant_settings)
    weights = make(
        checkpoint.file,
        scheme,
        dtype,
        act_bits=act_bits,
        names=family.WEIGHTS if gguf else None,
        row_order=_row_order(family, config, gguf),
        quantization=quantization,
        in_place=in_place,
        progress=progress,
    )
    weights.ignore(scheme.ignored)
    return weights


def _check_packed(file: PackedFile, quantization: str | None) -> None:
    table = file.table
    if table.layout != ops.packed_layout():
        raise UnsupportedModel(
            f"{file.path}: packed in the layout {table.layout}, and this backend has {ops.packed_layout()}: "
            "pack the model again"
        )
    if quantization not in (None, table.quantization):
        packed = f"with quantization {table.quantization}" if table.quantization else "without quantization"
        raise ConfigError(f"{file.path} was packed {packed}: leave quantization out, or pack it again")


def _act_bits(activations: str, dtype: str) -> int:
    if activations not in LINEAR_ACTIVATIONS:
        raise ConfigError(f"activations must be one of {', '.join(LINEAR_ACTIVATIONS)}, not {activations!r}")
    if dtype == "float32":
        return 0
    if activations == "auto":
        return 16 if ops.prefers_integers() else 0
    return {"bfloat16": 0, "int8": 8, "int16": 16}[activations]


def _row_order(family: ModuleType, config: Any, gguf: bool) -> dict[str, np.ndarray] | None:
    """In which order the file has the rows of some matrices: in both formats, or in GGUF files alone."""
    if hasattr(family, "row_order"):
        return dict(family.row_order(config))
    return dict(family.gguf_row_order(config)) if gguf and hasattr(family, "gguf_row_order") else None


def _family(checkpoint: Checkpoint) -> ModuleType:
    """The module of tenon/models for an architecture: mostly the file named after the model type."""
    names = plugin.names(__package__)
    first = [checkpoint.model_type] if checkpoint.model_type in names else []
    for name in [*first, *names]:
        module = plugin.load(__package__, name)
        if checkpoint.architecture in _architectures(module, checkpoint.kind) and _fits(module, checkpoint):
            return module
    supported = sorted(
        {a for n in names for a in _architectures(plugin.load(__package__, n), checkpoint.kind)}
    )
    raise UnsupportedModel(
        f"{checkpoint.file.path}: architecture {checkpoint.architecture!r} is not supported; "
        f"{', '.join(supported)} are. If the library transformers has it, --model-impl transformers runs it, "
        "slowly"
    )


def _fits(module: ModuleType, checkpoint: Checkpoint) -> bool:
    """Where families share the name of an architecture, each says which checkpoints are its own."""
    return not hasattr(module, "fits") or bool(module.fits(checkpoint))


def _architectures(module: ModuleType, kind: str) -> tuple[str, ...]:
    if kind == "gguf":
        return tuple(module.GGUF_ARCHITECTURES)
    return (*module.ARCHITECTURES, *module.POOLING_ARCHITECTURES)
