"""What the configurations of families with experts have in common."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from tenon import ops
from tenon.layers.moe import MoEShape
from tenon.models._checkpoint import Checkpoint, name_in
from tenon.models._decoder import GGUF_FIELDS as DECODER_FIELDS
from tenon.models._decoder import DecoderConfig
from tenon.models._fields import Fields

WEIGHTS = {
    "model.layers.{i}.mlp.gate": "blk.{i}.ffn_gate_inp",
    "model.layers.{i}.mlp.experts.gate_proj": "blk.{i}.ffn_gate_exps",
    "model.layers.{i}.mlp.experts.up_proj": "blk.{i}.ffn_up_exps",
    "model.layers.{i}.mlp.experts.down_proj": "blk.{i}.ffn_down_exps",
}

# Of the experts that every token goes to, taken as one.
SHARED_WEIGHTS = {
    "model.layers.{i}.mlp.shared_experts.gate_proj": "blk.{i}.ffn_gate_shexp",
    "model.layers.{i}.mlp.shared_experts.up_proj": "blk.{i}.ffn_up_shexp",
    "model.layers.{i}.mlp.shared_experts.down_proj": "blk.{i}.ffn_down_shexp",
}

GGUF_FIELDS: dict[str, tuple[str, ...]] = {
    **DECODER_FIELDS,
    "num_experts": ("expert_count",),
    "num_experts_per_tok": ("expert_used_count",),
    "moe_intermediate_size": ("expert_feed_forward_length",),
    "norm_topk_prob": ("expert_weights_norm",),
}

# Of DeepSeek's mixtures, and of those built like them.
GROUPED_FIELDS: dict[str, tuple[str, ...]] = {
    **GGUF_FIELDS,
    "n_routed_experts": GGUF_FIELDS["num_experts"],
    "n_shared_experts": ("expert_shared_count",),
    "routed_scaling_factor": ("expert_weights_scale",),
    "n_group": ("expert_group_count",),
    "topk_group": ("expert_group_used_count",),
    "first_k_dense_replace": ("leading_dense_block_count",),
}

Config = TypeVar("Config", bound=DecoderConfig)


def with_grouped_experts(config: Config, checkpoint: Checkpoint, **routing: Any) -> Config:
    """`config` with the experts of GROUPED_FIELDS: out of the best groups, scaled, beside shared ones; the
    first layers have none. `routing` is more for `read_experts`.
    """
    fields = checkpoint.fields
    name = partial(name_in, checkpoint, gguf_fields=GROUPED_FIELDS)
    grouped = {
        "num_groups": fields.whole(name("n_group"), 1),
        "top_groups": fields.whole(name("topk_group"), 1),
    }
    scale = fields.number(name("routed_scaling_factor"), 1.0)
    experts = read_experts(
        checkpoint, config.width, count="n_routed_experts", scale=scale, **{**grouped, **routing}
    )
    shared = fields.whole(name("n_shared_experts"), 1, low=0) * experts.inner
    first = fields.whole(name("first_k_dense_replace"), 1, low=0)
    dense = frozenset(range(min(first, config.num_layers)))
    return replace(config, experts=replace(experts, shared=shared), dense_layers=dense)


def read_experts(
    checkpoint: Checkpoint,
    width: int,
    *,
    count: str = "num_experts",
    top_k: str = "num_experts_per_tok",
    inner: str | None = None,
    renormalize: bool = False,
    identities: int = 0,
    **routing: Any,
) -> MoEShape:
    """The experts of a configuration. Of config.json the names of `count` and `top_k` can be told, where they
    are not Qwen's; of both formats that of the experts' width. `renormalize` is what holds when nothing is
    said; `identities` are experts that are counted beside those of the field; `routing` is more for
    `ops.Routing`.

    Raises ModelFileError for fields that are missing or do not fit together.
    """
    fields = checkpoint.fields
    gguf = checkpoint.kind == "gguf"
    # transformers writes num_local_experts where publishers write num_experts.
    num_experts = fields.whole("expert_count" if gguf else count, fields.get("num_local_experts"))
    chosen = fields.whole("expert_used_count" if gguf else top_k)
    norm = fields.flag("expert_weights_norm" if gguf else "norm_topk_prob", renormalize)
    try:
        shape = ops.Routing(num_experts + identities, chosen, renormalize=norm, **routing)
    except ValueError as error:
        raise fields.error("expert_used_count" if gguf else top_k, f"does not fit: {error}") from None
    return MoEShape(
        width,
        fields.whole(inner or ("expert_feed_forward_length" if gguf else "moe_intermediate_size")),
        shape,
        identities=identities,
    )


def dense_layers(fields: Fields, num_layers: int) -> frozenset[int]:
    """The layers that have no experts: those that `mlp_only_layers` names, and all but every
    `decoder_sparse_step`-th."""
    step = fields.whole("decoder_sparse_step", 1)
    named = fields.get("mlp_only_layers", [])
    if not isinstance(named, list) or not all(isinstance(layer, int) for layer in named):
        raise fields.error("mlp_only_layers", "must list layers")
    return frozenset(layer for layer in range(num_layers) if layer in named or (layer + 1) % step)
