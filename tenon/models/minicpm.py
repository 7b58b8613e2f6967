"""MiniCPM 4 and 4.1 (MiniCPM Team 2025), and MiniCPM before it: Llama with scales for models of all sizes.

    x = scale_emb embed(tokens)
    for each layer:  x += s attention(norm(x));  x += s mlp(norm(x));  s = scale_depth / sqrt(layers)
    logits = head(norm(x) / m);  m = width / dim_model_base

Positions are stretched by LongRoPE. With `sparse_config` (InfLLM-v2) tokens with a long context attend to a
few blocks that they choose (tenon.ops.sparse_attention). GGUF has no place for it: such files are dense.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tenon import ops
from tenon.core.spec import ModelSpec
from tenon.errors import UnsupportedModel
from tenon.layers.attention import SparseAttention
from tenon.layers.rope import Rope
from tenon.layers.weights import Weights
from tenon.models import llama
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, multiplied, read_decoder_config
from tenon.models._fields import Fields

ARCHITECTURES = ("MiniCPMForCausalLM",)
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("minicpm",)
WEIGHTS = llama.WEIGHTS
IGNORED = llama.IGNORED

TINY: dict[str, Any] = {
    **llama.TINY,
    "model_type": "minicpm",
    "architectures": ["MiniCPMForCausalLM"],
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "scale_emb": 2,
    "scale_depth": 1.4,
    "dim_model_base": 16,
    "rope_scaling": {
        "rope_type": "longrope",
        "short_factor": [1.0, 1.01, 1.03, 1.1, 1.3, 1.9, 3.4, 6.0],
        "long_factor": [1.0, 1.02, 1.1, 1.4, 2.1, 4.0, 8.5, 15.0],
        "original_max_position_embeddings": 512,
    },
    "sparse_config": {
        "kernel_size": 16,
        "kernel_stride": 8,
        "block_size": 32,
        "init_blocks": 1,
        "window_size": 32,
        "topk": 4,
        "dense_len": 200,
    },
}

SIZES: dict[str, dict[str, Any]] = {
    "8B": {  # MiniCPM4.1
        **{key: value for key, value in TINY.items() if key != "rope_scaling"},
        "hidden_size": 4096,
        "intermediate_size": 16384,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 2,
        "max_position_embeddings": 65536,
        "scale_emb": 12,
        "dim_model_base": 256,
        "sparse_config": {
            "kernel_size": 32,
            "kernel_stride": 16,
            "block_size": 64,
            "init_blocks": 1,
            "window_size": 2048,
            "topk": 64,
            "dense_len": 8192,
        },
    },
}


@dataclass(frozen=True, slots=True, eq=False)
class MiniCPMConfig(DecoderConfig):
    sparsity: ops.Sparsity | None = None


class MiniCPM(llama.Llama):
    def __init__(self, config: MiniCPMConfig, spec: ModelSpec, weights: Weights, num_positions: int) -> None:
        super().__init__(config, spec, weights, num_positions)
        self.sparsity = config.sparsity

    def attention(self, config: DecoderConfig, layer: Weights, rope: Rope, number: int) -> llama.Attending:
        assert isinstance(config, MiniCPMConfig)
        if config.sparsity is None:
            return super().attention(config, layer, rope, number)
        return SparseAttention(layer.at("self_attn"), config.attention(number), rope, config.sparsity)

    def kv_bytes_per_block(self, block_size: int) -> int:
        if self.sparsity is None:
            return super().kv_bytes_per_block(block_size)
        (group,), act = self.spec.kv_groups, ops.act_dtype(self.spec.dtype)
        of_layer = ops.sparse_bytes_per_block(
            block_size, group.num_kv_heads, group.head_dim, act, self.sparsity
        )
        return group.num_layers * of_layer

    def kv_caches(self, num_blocks: int, block_size: int, num_slots: int = 0) -> list[Any]:
        if self.sparsity is None:
            return super().kv_caches(num_blocks, block_size, num_slots)
        (group,), act = self.spec.kv_groups, ops.act_dtype(self.spec.dtype)
        return [
            ops.sparse_cache(num_blocks, block_size, group.num_kv_heads, group.head_dim, act, self.sparsity)
            for _ in range(group.num_layers)
        ]


MODEL = MiniCPM

# GGUF files of this family have the rows of q and k in Llama's order.
gguf_row_order = llama.gguf_row_order


def gguf_metadata(config: dict[str, Any]) -> dict[str, float]:
    """What GGUF files have in place of the scales that config.json has."""
    return {
        "embedding_scale": float(config["scale_emb"]),
        "residual_scale": config["scale_depth"] / config["num_hidden_layers"] ** 0.5,
        "logit_scale": config["hidden_size"] / config["dim_model_base"],
    }


def read_config(checkpoint: Checkpoint) -> MiniCPMConfig:
    config, fields = read_decoder_config(checkpoint), checkpoint.fields
    if checkpoint.kind == "gguf":
        tied = config.tied_head
        embedding = fields.number("embedding_scale", 12.0)
        residual = fields.number("residual_scale", 1.4 / config.num_layers**0.5)
        logits = fields.number("logit_scale", config.width / 256)
    else:
        if fields.whole("num_experts", 0, low=0):
            raise UnsupportedModel(f"{fields.path}: MiniCPM with experts is not supported")
        tied = fields.flag("tie_word_embeddings", True)
        embedding = fields.number("scale_emb", 1.0)
        residual = fields.number("scale_depth", 1.0) / config.num_layers**0.5
        logits = config.width / fields.number("dim_model_base", 1.0)
    config = replace(config, tied_head=tied)
    config = multiplied(config, embedding=embedding, residual=residual, logits=1 / logits)
    return MiniCPMConfig(
        **config.values(), sparsity=None if checkpoint.kind == "gguf" else _read_sparsity(fields)
    )


def _read_sparsity(fields: Fields) -> ops.Sparsity | None:
    """None if the model is not sparse, or is not to be run so: users add `sparse_config` to config.json."""
    sparse = fields.within("sparse_config")
    if not sparse.values:
        return None
    if sparse.flag("use_nope", False):
        raise UnsupportedModel(f"{fields.path}: sparse_config.use_nope is not supported")
    stride, block = sparse.whole("kernel_stride", 16), sparse.whole("block_size", 64)
    if sparse.whole("kernel_size", 32) != 2 * stride:
        raise UnsupportedModel(f"{fields.path}: sparse_config.kernel_size must be twice its kernel_stride")
    local = sparse.whole("window_size", 2048) // block
    try:
        return ops.Sparsity(
            stride=stride,
            block=block,
            init_blocks=sparse.whole("init_blocks", 1, low=0),
            local_blocks=local,
            top_blocks=sparse.whole("topk", 64) + local,
            dense_len=sparse.whole("dense_len", 8192),
        )
    except ValueError as error:
        raise fields.error("sparse_config", f"does not fit: {error}") from None
