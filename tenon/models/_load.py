"""From files to a model that runs."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import msgspec
import numpy as np

from tenon import ops
from tenon.config import LINEAR_ACTIVATIONS
from tenon.core.files import ModelFiles
from tenon.core.pooling import Pooler
from tenon.core.spec import Model, PoolingModel
from tenon.errors import ConfigError, UnsupportedModel
from tenon.layers.linear import linear_scheme
from tenon.layers.weights import Progress, Weights
from tenon.models._checkpoint import Checkpoint, open_checkpoint
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
    progress: Progress | None = None,
) -> Model | PoolingModel:
    """Load the model in `files`.

    `dtype` is that of activations and KV: "bfloat16" (also "auto") or "float32". `activations` is what
    meets group-quantised weights, for bfloat16: "bfloat16", "int8", or "auto", whichever is faster here.
    `quantization` ("int8" or "int4") says what weights become that are floats in the files; see
    `tenon.core.quantize`. No position at or above `max_model_len` (default: the model's context length) may
    be asked of the model. `convert` and `pooler` are the engine arguments: with them, or by its architecture,
    the model may become a PoolingModel. `progress(done, total)` is called with bytes of weights.

    Raises ModelFileError, naming file and tensor or field, for files that are malformed or do not fit
    together; UnsupportedModel for what tenon does not do; ConfigError for wrong arguments.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    dtype = DTYPES[dtype]
    checkpoint = open_checkpoint(files)
    family = _family(checkpoint)
    config = family.read_config(checkpoint)
    spec = config.spec(family.__name__.rpartition(".")[2], checkpoint.eos_token_ids, dtype)
    spec = replace(spec, int8=_use_int8(activations, dtype))
    pooling = pooling_spec(checkpoint, family, config.width, convert, pooler)
    if pooling is not None:
        pooling = msgspec.structs.replace(pooling, num_token_types=getattr(config, "num_types", 1))
        longest = longest_input(checkpoint, spec.max_position)
        spec = replace(spec, pooling=pooling, max_position=longest)
    num_positions = max_model_len or spec.max_position
    if num_positions > spec.max_position:
        raise ConfigError(
            f"max_model_len {max_model_len} is more than the {spec.max_position} positions of {files.name}"
        )
    weights = Weights(
        checkpoint.file,
        linear_scheme(checkpoint.quant),
        dtype,
        int8=spec.int8,
        names=family.WEIGHTS if checkpoint.kind == "gguf" else None,
        row_order=_row_order(family, config) if checkpoint.kind == "gguf" else None,
        quantization=quantization,
        progress=progress,
    )
    weights.ignore(family.IGNORED)
    model: Model | PoolingModel = family.MODEL(config, spec, weights, num_positions)
    weights.check_all_used()
    return model


def _use_int8(activations: str, dtype: str) -> bool:
    if activations not in LINEAR_ACTIVATIONS:
        raise ConfigError(f"activations must be one of {', '.join(LINEAR_ACTIVATIONS)}, not {activations!r}")
    if dtype == "float32":
        return False
    return ops.prefers_int8() if activations == "auto" else activations == "int8"


def _row_order(family: ModuleType, config: Any) -> dict[str, np.ndarray] | None:
    return family.gguf_row_order(config) if hasattr(family, "gguf_row_order") else None


def _family(checkpoint: Checkpoint) -> ModuleType:
    """The module of tenon/models for an architecture: mostly the file named after the model type."""
    names = plugin.names(__package__)
    first = [checkpoint.model_type] if checkpoint.model_type in names else []
    for name in [*first, *names]:
        module = plugin.load(__package__, name)
        if checkpoint.architecture in _architectures(module, checkpoint.kind):
            return module
    supported = sorted(
        {a for n in names for a in _architectures(plugin.load(__package__, n), checkpoint.kind)}
    )
    raise UnsupportedModel(
        f"{checkpoint.file.path}: architecture {checkpoint.architecture!r} is not supported; "
        f"{', '.join(supported)} are"
    )


def _architectures(module: ModuleType, kind: str) -> tuple[str, ...]:
    if kind == "gguf":
        return tuple(module.GGUF_ARCHITECTURES)
    return (*module.ARCHITECTURES, *module.POOLING_ARCHITECTURES)
