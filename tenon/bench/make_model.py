"""Checkpoints of real shapes with random weights: for benchmarks and tests of models that are not here.

What tensors a family has is not written down twice: its model is built once over a stand-in for a checkpoint
that notes what is asked for.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from tenon import ops
from tenon.bench import random_weights
from tenon.core import ggml
from tenon.core.files import ModelFiles
from tenon.core.tensors import BlockScales, RawTensor
from tenon.errors import ConfigError
from tenon.formats.gguf import GGUFFile
from tenon.formats.mapped import TensorInfo
from tenon.formats.shards import INDEX_NAME, SINGLE_NAME
from tenon.formats.writing import BYTES, Layout, NewTensor, gguf_layout, safetensors_layout
from tenon.layers.linear import linear_scheme
from tenon.layers.packed import PackedShape
from tenon.layers.weights import FP8, FP8Scales, Tensor, Weights
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import GGUF_FIELDS
from tenon.models._fields import Fields
from tenon.models._load import read_spec
from tenon.util import plugin

TINY = "tiny"
SHARD_BYTES = 4 << 30
VOCABULARIES = ("vocab_size", "vocab_size_per_layer_input")
# What families call the number of their layers, of their experts, and of those of one token.
LAYERS = ("num_hidden_layers", "num_layers")
EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
CHOSEN = ("num_experts_per_tok", "top_k_experts", "moe_topk", "moe_k")
_TABLES = ("token_embd.weight", "output.weight")  # have eight bits where other weights have fewer
# Parts of names of matrices that stay floats in files in FP8.
_NOT_FP8 = (
    "embed_tokens", "lm_head", "shared_head", "eh_proj", "mlp.gate.weight", "shared_expert_gate", "conv1d",
    "in_proj_ba", "weights_proj", "router",
)  # fmt: skip

Progress = Callable[[int, int], None]  # bytes written, bytes in all


class Made(NamedTuple):
    path: Path
    parameters: int
    num_bytes: int


def sizes(family: str) -> dict[str, dict[str, Any]]:
    """The shapes that a family's file names, as config.json. Raises ConfigError for an unknown family."""
    module = _family(family)
    return {TINY: module.TINY, **getattr(module, "SIZES", {})}


def make_model(
    family: str,
    size: str,
    path: Path,
    *,
    tokenizer: ModelFiles,
    format: str = "gguf",
    dtype: str | None = None,
    layers: int | None = None,
    experts: int | None = None,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> Made:
    """Write a checkpoint: a GGUF file, or a directory of safetensors. `tokenizer` is a GGUF model whose
    vocabulary the new one gets. `layers` and `experts`: fewer than the size has. Raises ConfigError for what
    cannot be written.
    """
    module, known = _family(family), sizes(family)
    if size not in known:
        raise ConfigError(f"{family} has no size {size!r}; it has {', '.join(known)}")
    if tokenizer.kind != "gguf":
        raise ConfigError(f"the tokenizer must come from a .gguf file, not from {tokenizer.path}")
    if path.exists():
        raise ConfigError(f"{path} exists already")
    dtype = dtype or ("q4_1" if format == "gguf" else "bf16")
    if dtype not in ggml.BLOCKS:
        raise ConfigError(f"dtype must be one of {', '.join(ggml.BLOCKS)}, not {dtype!r}")
    vocabulary = GGUFFile(tokenizer.path).metadata
    tokens = {name: len(vocabulary["tokenizer.ggml.tokens"]) for name in VOCABULARIES if name in known[size]}
    config = shrunk({**known[size], **tokens}, layers, experts)
    if format == "gguf":
        if dtype == FP8:
            raise ConfigError(f"GGUF has no {FP8}: give --format safetensors")
        if not module.GGUF_ARCHITECTURES:
            raise ConfigError(f"GGUF has no {family}: give --format safetensors")
        tensors = [_for_gguf(tensor, dtype) for tensor in blueprint(module, config, module.WEIGHTS)]
        constants = module.gguf_constants(config) if hasattr(module, "gguf_constants") else {}
        tensors += [NewTensor(name, "f32", array.shape) for name, array in constants.items()]
        metadata = _metadata(module, config, f"{family} {size}")
        metadata |= {key: vocabulary.encoded(key) for key in vocabulary if key.startswith("tokenizer.")}
        _write({path: (gguf_layout(metadata, tensors), tensors)}, seed, progress, constants)
    else:
        if dtype not in ggml.FLOATS:
            raise ConfigError(f"safetensors are written in {', '.join(ggml.FLOATS)}, not {dtype}")
        tensors = [
            tensor if tensor.dtype == BYTES else tensor._replace(dtype="bf16" if dtype == FP8 else dtype)
            for tensor in blueprint(module, config, None)
        ]
        if dtype == FP8:
            tensors, config = _in_fp8(tensors, config)
        path.mkdir(parents=True)
        _write_tokenizer(path, tokenizer)
        _write_json(path / "config.json", _with_tokens(config, vocabulary, dtype))
        _write_shards(path, tensors, seed, progress)
    scales = {_scales_of(tensor.name) for tensor in tensors}
    parameters = sum(int(np.prod(tensor.shape)) for tensor in tensors if tensor.name not in scales)
    return Made(path, parameters, sum(tensor.num_bytes for tensor in tensors))


def shrunk(config: dict[str, Any], layers: int | None = None, experts: int | None = None) -> dict[str, Any]:
    """A configuration with only the first layers of a model, and fewer experts in each: the shapes of what is
    left stay what they are. Of dense layers before those with experts, of layers that borrow K and V, and of
    experts that do nothing, there are fewer too. Raises ConfigError for more than there are."""
    config = dict(config)
    if layers is not None:
        count = next(name for name in LAYERS if name in config)
        whole = config[count]
        if not 0 < layers <= whole:
            raise ConfigError(f"layers must be 1 to {whole}, not {layers}")
        config |= _fewer_of_a_kind(config, layers, whole)
        config[count] = layers
        config |= {k: v[:layers] for k, v in config.items() if isinstance(v, list) and len(v) == whole}
    if experts is not None:
        field = next((name for name in EXPERTS if config.get(name)), None)
        if field is None:
            raise ConfigError("this model has no experts")
        if not 0 < experts <= config[field]:
            raise ConfigError(f"experts must be 1 to {config[field]}, not {experts}")
        if idle := config.get("zero_expert_num"):
            config["zero_expert_num"] = idle * experts // config[field]
        config[field] = experts
    return config


def _fewer_of_a_kind(config: dict[str, Any], layers: int, whole: int) -> dict[str, int]:
    """How many of `layers` are of a kind that comes first, or last, in all layers."""
    fewer = {}
    if dense := config.get("first_k_dense_replace"):
        fewer["first_k_dense_replace"] = max(1, dense * layers // whole)
    if borrowing := config.get("num_kv_shared_layers"):
        kinds = config["layer_types"]  # of each one has to be left to lend
        lending = max(kinds.index(kind) for kind in set(kinds)) + 1
        fewer["num_kv_shared_layers"] = max(0, min(borrowing * layers // whole, layers - lending))
    return fewer


def _family(name: str) -> ModuleType:
    families = plugin.names("tenon.models")
    if name not in families:
        raise ConfigError(f"there is no family {name!r}; there are {', '.join(families)}")
    return plugin.load("tenon.models", name)


def blueprint(family: ModuleType, config: dict[str, Any], names: dict[str, str] | None) -> list[NewTensor]:
    """The tensors of a model, as f32 but for those that its quantization method packs: under the names of
    safetensors, or with `names` of GGUF files."""
    checkpoint = _shape_only(config)
    read = family.read_config(checkpoint)
    weights = _Blueprint(
        checkpoint.file, linear_scheme(checkpoint.quant, checkpoint.quant_settings), "bfloat16", names=names
    )
    family.MODEL(read, read_spec(checkpoint, family, read, "bfloat16"), weights, 1)
    return weights.asked_for


def read_tiny(family: ModuleType) -> Any:
    """What a family reads of its smallest configuration."""
    return family.read_config(_shape_only(family.TINY))


def _shape_only(config: dict[str, Any]) -> Checkpoint:
    """A checkpoint of this configuration without tensors."""
    fields = Fields(config, Path("config.json"))
    settings = config.get("quantization_config", {})
    quant = settings.get("quant_method", "none")
    names = config["architectures"][0], config["model_type"]
    return Checkpoint("hf", _NoFile(), *names, fields, quant, (), quant_settings=settings)


class _NoFile:
    """A checkpoint without tensors."""

    path = Path("config.json")

    def __init__(self) -> None:
        self.tensors: Mapping[str, TensorInfo] = {}


class _Blueprint(Weights):
    """Notes what a model asks for. Vectors are zeros, and what is packed cannot be multiplied with."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._asked_for: dict[NewTensor, None] = {}  # in order, once each

    @property
    def asked_for(self) -> list[NewTensor]:
        return list(self._asked_for)

    def raw(self, name: str, shape: tuple[int, ...]) -> RawTensor:
        self._asked_for[NewTensor(self.file_name(name), "f32", shape)] = None
        return RawTensor(name, "f32", shape, np.zeros(shape, np.float32).reshape(-1).view(np.uint8))

    def table(self, name: str, rows: int, columns: int) -> np.ndarray:
        self.raw(name, (rows, columns))
        return np.zeros((rows, columns), np.float32)  # memory that is never touched

    def pack_tensors(self, tensors: list[Tensor]) -> ops.PackedLinear:
        for tensor in tensors:
            dtype = "f32" if tensor.stored in ("rows", "columns") else BYTES
            asked = tensor.file_tensors()
            self._asked_for |= {NewTensor(self.file_name(name), dtype, shape): None for name, shape in asked}
        rows = sum(math.prod(tensor.shape[:-1]) for tensor in tensors)
        return PackedShape((rows, tensors[0].shape[-1]))

    def pack_made(self, matrices: list[np.ndarray]) -> ops.PackedLinear:
        return PackedShape((sum(len(matrix) for matrix in matrices), matrices[0].shape[1]))


def _for_gguf(tensor: NewTensor, dtype: str) -> NewTensor:
    """The type a tensor has in a file whose weights are mostly `dtype`, as llama.cpp's tools choose it: f32
    for vectors, eight bits for embedding and head, and a type of smaller blocks for odd numbers of columns;
    only experts are mxfp4.
    """
    if len(tensor.shape) == 1 or tensor.name.endswith(".bias") or "ssm_conv1d" in tensor.name:
        return tensor
    if "ffn_gate_inp" in tensor.name:  # routers are floats, and gates of shared experts vectors
        return tensor._replace(shape=tensor.shape if tensor.shape[0] > 1 else tensor.shape[1:])
    if dtype == "mxfp4" and "_exps" not in tensor.name:
        dtype = "q8_0"
    block = ggml.BLOCKS[dtype]
    if tensor.name in _TABLES and block.group and dtype != "q6_k":
        dtype = "q8_0"
    if tensor.shape[-1] % ggml.BLOCKS[dtype].elements:
        dtype = "q8_0" if tensor.shape[-1] % 32 == 0 else "f16"
    return tensor._replace(dtype=dtype)


def _scales_of(name: str) -> str:
    """What `_in_fp8` calls the scales of a matrix."""
    return FP8Scales(random_weights.FP8_BLOCK, random_weights.FP8_BLOCK).name(name, ())


def _in_fp8(tensors: list[NewTensor], config: dict[str, Any]) -> tuple[list[NewTensor], dict[str, Any]]:
    """Matrices of layers as DeepSeek-V3 is published, and what config.json says of them."""
    if "quantization_config" in config:
        raise ConfigError(f"this family is published in {config['quantization_config']['quant_method']}")
    layout = []
    for tensor in tensors:
        if len(tensor.shape) < 2 or any(part in tensor.name for part in _NOT_FP8):
            layout.append(tensor)
            continue
        shape = BlockScales.shape(tensor.shape, random_weights.FP8_BLOCK, random_weights.FP8_BLOCK)
        layout += [tensor._replace(dtype=FP8), NewTensor(_scales_of(tensor.name), "f32", shape)]
    quantization = {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [random_weights.FP8_BLOCK, random_weights.FP8_BLOCK],
    }
    return layout, config | {"quantization_config": quantization}


def _metadata(family: ModuleType, config: dict[str, Any], name: str) -> dict[str, Any]:
    """What `general.` and the architecture's own keys must say, from the values of config.json."""
    (architecture, *_) = family.GGUF_ARCHITECTURES
    metadata = {
        "general.architecture": architecture,
        "general.type": "model",
        "general.name": f"{name} with random weights",
        "general.quantization_version": 2,
    }
    fields: dict[str, tuple[str, ...]] = getattr(family, "GGUF_FIELDS", GGUF_FIELDS)
    for field, keys in fields.items():
        if config.get(field) is not None:
            metadata |= {f"{architecture}.{key}": config[field] for key in keys}
    if hasattr(family, "gguf_metadata"):
        computed = family.gguf_metadata(config)
        metadata |= {f"{architecture}.{key}": value for key, value in computed.items()}
    return metadata


def _with_tokens(config: dict[str, Any], vocabulary: Any, dtype: str) -> dict[str, Any]:
    names = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", FP8: "bfloat16"}
    ids = {key: vocabulary.get(f"tokenizer.ggml.{key}") for key in ("bos_token_id", "eos_token_id")}
    return config | {key: value for key, value in ids.items() if value is not None} | {"dtype": names[dtype]}


def _write_tokenizer(directory: Path, source: ModelFiles) -> None:
    from tenon.text.load import load_tokenizer

    tokenizer = load_tokenizer(source)
    tokenizer.save(directory / "tokenizer.json")
    names = {"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{key: value for key, value in names.items() if value is not None},
        "chat_template": tokenizer.chat_template,
    }
    _write_json(directory / "tokenizer_config.json", config)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def _write_shards(directory: Path, tensors: list[NewTensor], seed: int, progress: Progress) -> None:
    """`model.safetensors`, or shards of at most SHARD_BYTES (unless one tensor is larger) and their index."""
    shards: list[list[NewTensor]] = [[]]
    for tensor in tensors:
        if shards[-1] and sum(t.num_bytes for t in shards[-1]) + tensor.num_bytes > SHARD_BYTES:
            shards.append([])
        shards[-1].append(tensor)
    count = len(shards)
    names = (
        [SINGLE_NAME]
        if count == 1
        else [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
    )
    files = {
        directory / name: (safetensors_layout(shard), shard)
        for name, shard in zip(names, shards, strict=True)
    }
    if count > 1:
        total = sum(tensor.num_bytes for tensor in tensors)
        weight_map = {tensor.name: path.name for path, (_, shard) in files.items() for tensor in shard}
        _write_json(directory / INDEX_NAME, {"metadata": {"total_size": total}, "weight_map": weight_map})
    _write(files, seed, progress)


def _write(
    files: dict[Path, tuple[Layout, list[NewTensor]]],
    seed: int,
    progress: Progress,
    constants: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> None:
    """All chunks of all tensors, by as many threads as there are cores; none is held longer than that.
    `constants` are those that are not random, of a chunk each."""
    total = sum(layout.size for layout, _ in files.values())
    done = 0
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        for path, (layout, tensors) in files.items():
            with path.open("xb") as file:
                file.write(layout.header)
                file.truncate(layout.size)
                file.flush()

                def write(piece: tuple[NewTensor, int], file: Any = file, layout: Layout = layout) -> int:
                    tensor, chunk = piece
                    data = constants.get(tensor.name)
                    if data is None:
                        data = random_weights.chunk_bytes(tensor, chunk, seed)
                    before = chunk * tensor._replace(shape=(random_weights.CHUNK,)).num_bytes
                    return os.pwrite(file.fileno(), data.data, layout.offsets[tensor.name] + before)

                pieces = [(t, chunk) for t in tensors for chunk in range(random_weights.num_chunks(t))]
                for written in threads.map(write, pieces):
                    done += written
                    progress(done, total)
