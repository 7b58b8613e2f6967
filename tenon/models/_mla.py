"""What families with latent attention have in common: the configuration, and which rows of q and k turn."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tenon.core.spec import KVGroup, ModelSpec
from tenon.layers.mla import LatentShape
from tenon.layers.rope import RopeConfig
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, read_decoder_config
from tenon.models._fields import MAX_WIDTH, Fields

WEIGHTS = {
    "model.layers.{i}.self_attn.q_proj": "blk.{i}.attn_q",
    "model.layers.{i}.self_attn.q_a_proj": "blk.{i}.attn_q_a",
    "model.layers.{i}.self_attn.q_a_layernorm": "blk.{i}.attn_q_a_norm",
    "model.layers.{i}.self_attn.q_b_proj": "blk.{i}.attn_q_b",
    "model.layers.{i}.self_attn.kv_a_proj_with_mqa": "blk.{i}.attn_kv_a_mqa",
    "model.layers.{i}.self_attn.kv_a_layernorm": "blk.{i}.attn_kv_a_norm",
    "model.layers.{i}.self_attn.kv_b_proj": "blk.{i}.attn_kv_b",
    "model.layers.{i}.self_attn.k_b_proj": "blk.{i}.attn_k_b",
    "model.layers.{i}.self_attn.v_b_proj": "blk.{i}.attn_v_b",
}

GGUF_FIELDS: dict[str, tuple[str, ...]] = {
    "q_lora_rank": ("attention.q_lora_rank",),
    "kv_lora_rank": ("attention.kv_lora_rank",),
    "qk_rope_head_dim": ("rope.dimension_count",),
    "v_head_dim": ("attention.value_length_mla",),
}


def gguf_metadata(config: dict[str, Any]) -> dict[str, Any]:
    """What no single field of config.json says, for files that tenon writes."""
    rope = config["rope_parameters"]
    metadata = {"attention.key_length_mla": config["qk_nope_head_dim"] + config["qk_rope_head_dim"]}
    if rope["rope_type"] == "yarn":
        metadata |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": float(rope["factor"]),
            "rope.scaling.original_context_length": rope["original_max_position_embeddings"],
            "rope.scaling.yarn_log_multiplier": 0.1 * rope["mscale_all_dim"],
        }
    return metadata


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LatentConfig(DecoderConfig):
    latent: LatentShape
    adjacent_pairs: bool = True  # neighbours turn together in the files, not halves
    caches_per_layer: int = 1

    def spec(self, model_type: str, eos_token_ids: tuple[int, ...], dtype: str) -> ModelSpec:
        group = KVGroup("latent", self.num_layers * self.caches_per_layer, 1, self.latent.kept)
        return ModelSpec(model_type, self.vocab_size, self.max_position, (group,), eos_token_ids, dtype)


def read_latent_config(checkpoint: Checkpoint) -> LatentConfig:
    """Raises what `read_decoder_config` raises."""
    if checkpoint.kind == "hf":  # no heads of the model's width divided by their number
        checkpoint = saying(checkpoint, head_dim=checkpoint.fields.whole("qk_rope_head_dim"))
    config = read_decoder_config(checkpoint)
    latent = (_from_gguf if checkpoint.kind == "gguf" else _from_hf)(checkpoint.fields, config)
    if latent.rope_dim % 2:
        raise checkpoint.fields.error("rope", f"cannot rotate {latent.rope_dim} elements")
    if latent.num_heads * max(latent.rank, latent.nope_dim + latent.rope_dim, latent.value_dim) > MAX_WIDTH:
        raise checkpoint.fields.error("attention", f"{latent.num_heads} heads of this width are too many")
    values = config.values() | {"rope": _rope(checkpoint, config.rope, latent.rope_dim)}
    adjacent = checkpoint.kind == "gguf" or checkpoint.fields.flag("rope_interleave", True)
    return LatentConfig(**values, latent=latent, adjacent_pairs=adjacent)


def saying(checkpoint: Checkpoint, **values: int) -> Checkpoint:
    """The checkpoint as if its config.json had these fields too."""
    return replace(checkpoint, fields=checkpoint.fields.saying(values))


def _from_hf(fields: Fields, config: DecoderConfig) -> LatentShape:
    nope_dim, rope_dim = fields.whole("qk_nope_head_dim"), fields.whole("qk_rope_head_dim")
    stretch = config.rope.factor if config.rope.scaling != "default" else 1.0
    return LatentShape(
        width=config.width,
        num_heads=config.num_heads,
        rank=fields.whole("kv_lora_rank"),
        nope_dim=nope_dim,
        rope_dim=rope_dim,
        value_dim=fields.whole("v_head_dim"),
        q_rank=fields.whole("q_lora_rank", 0, low=0),
        scale=(nope_dim + rope_dim) ** -0.5 * _mscale(stretch, config.rope.mscale_all_dim) ** 2,
        bias=fields.flag("attention_bias", False),
    )


def _from_gguf(fields: Fields, config: DecoderConfig) -> LatentShape:
    """Files from before heads were split say the widths of keys and values themselves."""
    key_dim = fields.whole("attention.key_length_mla", fields.get("attention.key_length"))
    rope_dim = fields.whole("rope.dimension_count")
    if key_dim <= rope_dim:
        raise fields.error("attention.key_length_mla", f"must be above the {rope_dim} elements that turn")
    stretch = config.rope.factor if config.rope.scaling == "yarn" else 1.0
    multiplier = fields.number("rope.scaling.yarn_log_multiplier", 0.0, above=-1)
    return LatentShape(
        width=config.width,
        num_heads=config.num_heads,
        rank=fields.whole("attention.kv_lora_rank"),
        nope_dim=key_dim - rope_dim,
        rope_dim=rope_dim,
        value_dim=fields.whole("attention.value_length_mla", fields.get("attention.value_length")),
        q_rank=fields.whole("attention.q_lora_rank", 0, low=0),
        scale=key_dim**-0.5 * _mscale(stretch, 10 * multiplier) ** 2,
    )


def _rope(checkpoint: Checkpoint, rope: RopeConfig, rope_dim: int) -> RopeConfig:
    """GGUF files say only how scores are scaled; of the models that are, cos and sin are not."""
    if checkpoint.kind == "gguf" and checkpoint.fields.get("rope.scaling.yarn_log_multiplier"):
        return replace(rope, rot_dim=rope_dim, attention_factor=1.0)
    return replace(rope, rot_dim=rope_dim)


def _mscale(stretch: float, scale: float) -> float:
    """What q and k are both multiplied by when the context is stretched (DeepSeek-V2, section 3.1.4)."""
    return 1.0 if stretch <= 1 else 0.1 * scale * math.log(stretch) + 1.0


def row_order(config: LatentConfig) -> dict[str, np.ndarray]:
    """Files have elements that turn together as neighbours, at the end of each head of q and of the
    latent."""
    if not config.adjacent_pairs:
        return {}
    shape = config.latent
    heads = _turned(np.arange(shape.num_heads * (shape.nope_dim + shape.rope_dim)), shape.num_heads, shape)
    latent = _turned(np.arange(shape.row), 1, shape)
    names = {"q_proj": heads, "q_b_proj": heads, "kv_a_proj_with_mqa": latent}
    return {f"model.layers.{{i}}.self_attn.{name}": rows for name, rows in names.items()}


def _turned(rows: np.ndarray, heads: int, shape: LatentShape) -> np.ndarray:
    by_head = rows.astype(np.int32).reshape(heads, -1)
    kept, pairs = by_head[:, : -shape.rope_dim], by_head[:, -shape.rope_dim :]
    halves = pairs.reshape(heads, -1, 2).swapaxes(1, 2).reshape(heads, -1)
    return np.ascontiguousarray(np.concatenate([kept, halves], axis=1)).reshape(-1)
