"""Tiny random models of each family, made with transformers and saved for tenon as safetensors or GGUF."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from tenon.core.files import ModelFiles
from tenon.core.tensors import BlockScales
from tenon.layers.weights import Stacked
from tenon.models._decoder import GGUF_FIELDS
from tenon.util import plugin
from tests.models import minicpm_reference as minicpm_reference  # so that transformers knows it

# Those that generate; tests/models/encoders.py has the others.
FAMILIES = [name for name in plugin.names("tenon.models") if plugin.load("tenon.models", name).ARCHITECTURES]

# (format of the files, family)
KINDS = [
    *(("safetensors", name) for name in FAMILIES),
    *(("gguf", name) for name in FAMILIES if plugin.load("tenon.models", name).GGUF_ARCHITECTURES),
]

Model = Any  # a transformers causal LM
PickType = Callable[[str], Type]  # by GGUF tensor name


# Of transformers' names of parameters, what publishers call otherwise.
RENAMED = {
    "mixtral": {".mlp.": ".block_sparse_moe.", "gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"},
    "ernie4_5_moe": {".gate.moe_statics.": ".moe_statics."},
    "granitemoehybrid": {".router.weight": ".router.layer.weight"},
    "granitemoeshared": {".router.weight": ".router.layer.weight"},
}


def tiny(family: str) -> dict[str, Any]:
    return dict(plugin.load("tenon.models", family).TINY)


def make(config: dict[str, Any], seed: int) -> Model:
    """A float32 model with weights large enough for every part to matter."""
    generator = torch.Generator().manual_seed(seed)
    settings = {k: v for k, v in config.items() if k not in ("model_type", "architectures")}
    hf_config = AutoConfig.for_model(config["model_type"], **settings)
    model = AutoModelForCausalLM.from_config(
        hf_config, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    for experts in (module for module in model.modules() if getattr(module, "zero_expert_num", 0)):
        # It has matrices for experts that do nothing, which published files do not have.
        used = experts.gate_up_proj[: experts.num_routed_experts]
        experts.gate_up_proj = torch.nn.Parameter(used.detach().clone())
    with torch.no_grad():
        buffers = [(n, b) for n, b in model.named_buffers() if n.endswith(("bias", "layer_scalar"))]
        for name, parameter in [*model.named_parameters(), *buffers]:
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("bias"):
                parameter.copy_(noise * (0.1 if "e_score" in name else 0.5))
            elif parameter.dim() >= 2:
                parameter.copy_(noise * 1.5 / parameter.shape[-1] ** 0.5)
            else:
                parameter.copy_(1 + noise * 0.3)
    return model


def reference_logits(model: Model, tokens: list[int]) -> np.ndarray:
    """float32 [tokens, vocabulary]"""
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].float().numpy()


# Parts of names of matrices that stay floats in files in FP8.
NOT_FP8 = ("embed_tokens", "lm_head", "mlp.gate.weight")


def save_fp8(model: Model, directory: Path, block: tuple[int, int] = (32, 32)) -> ModelFiles:
    """The model as its published files in FP8 would be; what these hold is what it has afterwards."""
    model.save_pretrained(directory)
    (path,) = directory.glob("*.safetensors")
    exact, tensors = load_file(path), {}
    for name, weight in exact.items():
        tensors[name] = weight
        if weight.dim() < 2 or any(part in name for part in NOT_FP8):
            continue
        shape = BlockScales.shape(tuple(weight.shape), *block)
        spread = [torch.arange(n) // size for n, size in zip(weight.shape, block, strict=True)]
        scales = torch.rand(shape) * 0.01 + weight.abs().max() / 440
        factors = scales[spread[0]][:, spread[1]]
        tensors[name] = (weight / factors).to(torch.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = scales
        exact[name] = tensors[name].float() * factors
    save_file(exact, path, {"format": "pt"})
    model.load_state_dict(type(model).from_pretrained(directory, dtype=torch.float32).state_dict())
    save_file(tensors, path, {"format": "pt"})
    quantization = {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": list(block),
    }
    edit_json(directory / "config.json", {"quantization_config": quantization})
    return ModelFiles("hf", (path,), "tiny", directory)


def edit_json(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def save_safetensors(model: Model, directory: Path, **options: Any) -> ModelFiles:
    model.save_pretrained(directory, **options)
    return ModelFiles("hf", tuple(sorted(directory.glob("*.safetensors"))), "tiny", directory)


def save_gguf(model: Model, path: Path, pick: PickType = lambda name: Type.F32, **extra: Any) -> ModelFiles:
    """Write the model as GGUF, and give it the values that the file's quantized weights stand for.

    `extra` is metadata below the architecture's prefix, or with a leading underscore a tensor:
    `_rope_freqs=...`.
    """
    config, module = model.config, _module(model)
    config.allow_global_per_layer_attribute_access = True  # what is said of most layers
    as_saved = json.loads(config.to_json_string())
    (architecture,) = module.GGUF_ARCHITECTURES
    writer = gguf.GGUFWriter(path, architecture)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    _add_rope(writer, config)
    writer.add_eos_token_id(3)
    fields = getattr(module, "GGUF_FIELDS", {})
    metadata = {
        key: getattr(config, f)
        for f in fields
        for key in fields[f]
        if key not in GGUF_FIELDS.get(f, ()) and getattr(config, f, None) is not None
    }
    if hasattr(module, "gguf_metadata"):
        metadata |= module.gguf_metadata(as_saved)
    for key, value in metadata.items():
        _add(writer, f"{architecture}.{key}", value)
    for key, value in extra.items():
        if key.startswith("_"):
            writer.add_tensor(f"{key[1:]}.weight", value)
        else:
            _add(writer, f"{architecture}.{key.replace('__', '.')}", value)
    if hasattr(module, "gguf_constants"):
        for name, array in module.gguf_constants(as_saved).items():
            writer.add_tensor(name, array)
    offset = 1.0 if architecture in ("gemma3", "qwen3next") else 0.0  # that converters add to norms
    parts = [part for name, tensor in _tensors(model) for part in _converted(config, name, tensor)]
    for hf_name, tensor in parts:
        name = _gguf_name(module.WEIGHTS, hf_name)
        router = "ffn_gate_inp" in name or "exp_probs_b" in name
        exact = router or any(
            part in name for part in (".ssm_ba", ".ssm_conv1d", ".ssm_norm", ".ssm_a", ".ssm_d")
        )
        kind = pick(name) if tensor.dim() >= 2 and not exact else Type.F32
        if tensor.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
            kind = Type.F32
        data = quantize(tensor.numpy(), kind)
        tensor.copy_(torch.from_numpy(gguf.quants.dequantize(data, kind).reshape(tensor.shape)))
        if router:
            data = np.squeeze(data)  # as converters do
        if hf_name.endswith("A_log"):
            data = -np.exp(data)
        if offset and hf_name.endswith("norm.weight") and "linear_attn" not in hf_name:
            data = data + np.float32(offset)
        in_llamas_order = architecture in ("llama", "smollm3", "minicpm") or architecture.startswith(
            "granite"
        )
        if in_llamas_order and ("q_proj" in hf_name or "k_proj" in hf_name):
            data = _interleave(data, head_dim)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return ModelFiles("gguf", (path,), "tiny", path.parent)


def _converted(config: Any, name: str, tensor: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """What converters make of tensors of recurrent layers, as views: q, k, v and z of Qwen3-Next are taken
    apart."""
    if "conv1d.weight" in name:
        return [(name, tensor[:, 0])]
    if "shared_mlp.input_linear" in name:
        experts = config.num_local_experts
        gate, up = tensor.chunk(2)
        below = name.replace("shared_mlp.input_linear", "shared_mlp.{}" if experts else "mlp.{}")
        return [(below.format("gate_proj"), gate), (below.format("up_proj"), up)]
    if "shared_mlp.output_linear" in name:
        below = "shared_mlp" if config.num_local_experts else "mlp"
        return [(name.replace("shared_mlp.output_linear", f"{below}.down_proj"), tensor)]
    if "mamba.norm" in name:
        return [(name, tensor.view(config.mamba_n_groups, -1))]
    if name.endswith(("mamba.A_log", "mamba.D")):
        return [(name, tensor[:, None])]
    if "in_proj_qkvz" in name:
        keys, values = (
            config.linear_num_key_heads,
            config.linear_num_value_heads // config.linear_num_key_heads,
        )
        key, value = config.linear_key_head_dim, values * config.linear_value_head_dim
        parts = torch.split(tensor.view(keys, -1, tensor.shape[-1]), [key, key, value, value], dim=1)
        qkv = torch.cat([part.reshape(-1, tensor.shape[-1]) for part in parts[:3]])
        z = parts[3].reshape(-1, tensor.shape[-1])
        return [(name.replace("qkvz", "qkv"), qkv), (name.replace("qkvz", "z"), z)]
    return [(name, tensor)]


def published_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Of all tensors, under the names that publishers give them: each expert has its own."""
    if _stacked(model):
        return {name: tuple(tensor.shape) for name, tensor in [*model.named_parameters(), *_kept(model)]}
    shapes = {}
    for name, tensor in _tensors(model):
        if "block_sparse_moe.experts." in name and model.config.model_type.startswith("granitemoe"):
            _add_fused(shapes, name, tuple(tensor.shape))
        elif ".experts." in name and tensor.dim() == 3:
            before, after = name.split(".experts.")
            # Experts that do nothing have no matrices, but for transformers.
            real = model.config.n_routed_experts if hasattr(model.config, "zero_expert_num") else len(tensor)
            shapes |= {f"{before}.experts.{e}.{after}": tuple(tensor.shape[1:]) for e in range(real)}
        else:
            shapes[name] = tuple(tensor.shape)
    return shapes


def _add_fused(shapes: dict[str, tuple[int, ...]], name: str, shape: tuple[int, ...]) -> None:
    """Granite's experts are one tensor, and its gate and up another."""
    moe, which = name.split("experts.")
    if "down" in which:
        shapes[f"{moe}output_linear.weight"] = shape
    else:
        shapes[f"{moe}input_linear.weight"] = (shape[0], 2 * shape[1], shape[2])


def _tensors(model: Model) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights under the names that WEIGHTS has: those of gate and up of experts apart."""
    renamed = RENAMED.get(model.config.model_type, {})
    for name, tensor in _split_tensors(model):
        for ours, published in renamed.items():
            name = name.replace(ours, published)
        yield name, tensor


def _split_tensors(model: Model) -> Iterator[tuple[str, torch.Tensor]]:
    yield from _kept(model)
    stacked, weights = _stacked(model), _module(model).WEIGHTS
    for name, parameter in model.named_parameters():
        before, experts, matrix = name.partition("experts.")
        if not experts or matrix.endswith(".weight"):
            yield name, parameter.data
            continue
        suffix = "bias" if matrix.endswith("_bias") else "weight"
        if f"model.layers.{{i}}.{experts}{matrix}" in weights:  # has a name in GGUF
            yield f"{name}.weight", parameter.data
            continue
        columns = parameter.dim() == 3 and stacked is not None and stacked.stored == "columns"
        rows = parameter.data.transpose(1, 2) if columns else parameter.data
        if matrix.startswith("down_proj"):
            yield f"{before}{experts}down_proj.{suffix}", rows
            continue
        alternating = stacked is not None and stacked.alternating
        gate, up = (rows[:, ::2], rows[:, 1::2]) if alternating else rows.chunk(2, dim=1)
        yield f"{before}{experts}gate_proj.{suffix}", gate
        yield f"{before}{experts}up_proj.{suffix}", up


def _kept(model: Model) -> list[tuple[str, torch.Tensor]]:
    """Buffers that files have."""
    kept = model.state_dict().keys()
    return [(name, buffer) for name, buffer in model.named_buffers() if name in kept]


def _stacked(model: Model) -> Stacked | None:
    """How published files have experts, if they have those of a layer as one tensor."""
    return getattr(_module(model), "STACKED", None)


def _module(model: Model) -> Any:
    """Of its family."""
    return plugin.load("tenon.models", model.config.model_type.removesuffix("_text"))


def _add_rope(writer: gguf.GGUFWriter, config: Any) -> None:
    """Of models with several ropes, that of the layers that see everything."""
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope.get("rope_type") == "longrope":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        for length in ("long", "short"):
            writer.add_tensor(f"rope_factors_{length}.weight", np.array(rope[f"{length}_factor"], np.float32))
    if rope.get("rope_type") == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        writer.add_rope_dimension_count(int(head_dim * rope["partial_rotary_factor"]))


def quantize(values: np.ndarray, kind: Type) -> np.ndarray:
    """Rows of blocks, uint8 (or float32). K-quants, for which gguf has no quantizer, are random blocks."""
    values = np.ascontiguousarray(values, np.float32)
    if kind == Type.F32:
        return values
    try:
        return gguf.quants.quantize(values, kind)
    except NotImplementedError:
        return _random_blocks(values, kind)


def _random_blocks(values: np.ndarray, kind: Type) -> np.ndarray:
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(abs(int(values.view(np.int32).sum())))
    *rows, columns = values.shape
    blocks = (*rows, columns // elements)
    data = rng.integers(0, 256, (*blocks, size), dtype=np.uint8)

    def scale(start: int, around: float) -> None:
        halves = (rng.uniform(0.5, 1.5, (*blocks, 1)) * around).astype(np.float16)
        data[..., start : start + 2] = halves.view(np.uint8)

    # Weights of about the spread that `make` gives: code * scale of 6 bits * d, less minimum of 6 bits *
    # dmin.
    spread = 1.5 / columns**0.5
    if kind == Type.Q6_K:
        scale(208, spread / (18 * 74))
    else:
        codes = 16 if kind == Type.Q4_K else 32
        scale(0, spread / (codes / 2 * 20))
        scale(2, spread / 20)
    return data.reshape(*rows, -1)


def _gguf_name(names: dict[str, str], hf_name: str) -> str:
    parts = hf_name.split(".")
    number = next((p for p in parts if p.isdigit()), None)
    template = ".".join("{i}" if p == number else p for p in parts)
    stem, _, suffix = template.rpartition(".")
    name = names.get(template) or f"{names[stem]}.{suffix}"
    return name.replace("{i}", str(number))


def _interleave(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """What converters do to q and k of llama files."""
    tail = rows.shape[1:]
    return np.ascontiguousarray(
        rows.reshape(-1, 2, head_dim // 2, *tail).swapaxes(1, 2).reshape(rows.shape[0], *tail)
    )


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    else:
        writer.add_uint32(key, value)
