"""DeepSeek-V3.2 (DeepSeek-AI 2025): V3 whose tokens see the 2048 earlier ones that an indexer chooses.

    selected = the top_k of  sum over index heads of w_h max(q_h k, 0);   x += latent attention over selected

Up to `index_topk` tokens it is V3's attention.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tenon.errors import UnsupportedModel
from tenon.layers.indexer import IndexerShape
from tenon.models import _mla, deepseek_v3, llama
from tenon.models._checkpoint import Checkpoint

ARCHITECTURES = ("DeepseekV32ForCausalLM",)
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ()
WEIGHTS = deepseek_v3.WEIGHTS
IGNORED = llama.IGNORED

TINY: dict[str, Any] = {
    **deepseek_v3.TINY,
    "model_type": "deepseek_v32",
    "architectures": ["DeepseekV32ForCausalLM"],
    "index_n_heads": 16,
    "index_head_dim": 32,
    "index_topk": 24,
}

SIZES: dict[str, dict[str, Any]] = {
    "671B": {
        **deepseek_v3.SIZES["671B"],
        "model_type": "deepseek_v32",
        "architectures": ["DeepseekV32ForCausalLM"],
        "index_n_heads": 64,
        "index_head_dim": 128,
        "index_topk": 2048,
    },
}

row_order = _mla.row_order
MODEL = deepseek_v3.DeepseekV3


def read_config(checkpoint: Checkpoint) -> _mla.LatentConfig:
    config, fields = deepseek_v3.read_config(checkpoint), checkpoint.fields
    if not config.latent.q_rank:
        raise UnsupportedModel(f"{fields.path}: an indexer without q_lora_rank is not supported")
    indexer = IndexerShape(
        num_heads=fields.whole("index_n_heads"),
        width=fields.whole("index_head_dim"),
        top_k=min(fields.whole("index_topk"), config.max_position),
    )
    if indexer.width < config.latent.rope_dim:
        raise fields.error("index_head_dim", f"must be at least the {config.latent.rope_dim} that turn")
    return replace(config, latent=replace(config.latent, indexer=indexer))
