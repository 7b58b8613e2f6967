"""DeepSeek-V2 and its Lite and Coder models (DeepSeek-AI 2024): as V3, with experts chosen by softmax.

    s = softmax(router(x)); of the top groups by their best expert, the top_k experts
    mlp(x) = scale * sum of s_e expert_e(x) + shared(x)

Lite has no groups, and q is one matrix.
"""

from __future__ import annotations

from typing import Any

from tenon.errors import UnsupportedModel
from tenon.models import _mla, deepseek_v3, llama
from tenon.models._checkpoint import Checkpoint
from tenon.models._experts import with_grouped_experts

ARCHITECTURES = ("DeepseekV2ForCausalLM",)
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = deepseek_v3.GGUF_ARCHITECTURES
WEIGHTS = deepseek_v3.WEIGHTS
GGUF_FIELDS = deepseek_v3.GGUF_FIELDS
IGNORED = llama.IGNORED

TINY: dict[str, Any] = {
    **deepseek_v3.TINY,
    "model_type": "deepseek_v2",
    "architectures": ["DeepseekV2ForCausalLM"],
    "topk_method": "group_limited_greedy",
    "norm_topk_prob": False,
    "routed_scaling_factor": 4.0,
    "rope_parameters": {**deepseek_v3.TINY["rope_parameters"], "mscale": 0.707, "mscale_all_dim": 0.707},
}

SIZES: dict[str, dict[str, Any]] = {
    "16B-A2.4B": {  # DeepSeek-V2-Lite
        **TINY,
        "vocab_size": 102400,
        "hidden_size": 2048,
        "intermediate_size": 10944,
        "moe_intermediate_size": 1408,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "q_lora_rank": None,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "n_routed_experts": 64,
        "num_experts_per_tok": 6,
        "n_shared_experts": 2,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
        "routed_scaling_factor": 1.0,
        "max_position_embeddings": 163840,
        "rope_parameters": {
            **TINY["rope_parameters"],
            "factor": 40,
            "original_max_position_embeddings": 4096,
        },
    },
}

row_order = _mla.row_order
gguf_metadata = _mla.gguf_metadata


class DeepseekV2(deepseek_v3.DeepseekV3):
    experts = llama.Llama.experts  # the router has no bias


MODEL = DeepseekV2


def fits(checkpoint: Checkpoint) -> bool:
    return checkpoint.kind != "gguf" or not deepseek_v3.fits(checkpoint)


def read_config(checkpoint: Checkpoint) -> _mla.LatentConfig:
    fields, gguf = checkpoint.fields, checkpoint.kind == "gguf"
    method = "group_limited_greedy" if gguf else fields.text("topk_method", "greedy")
    if method not in ("greedy", "group_limited_greedy"):
        raise UnsupportedModel(f"{fields.path}: topk_method {method!r} is not supported; greedy is")
    config = _mla.read_latent_config(checkpoint)
    groups = {"num_groups": 1, "top_groups": 1} if method == "greedy" else {}
    return with_grouped_experts(config, checkpoint, group_best=1, **groups)
