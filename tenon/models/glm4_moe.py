"""GLM-4.5 and 4.6 (GLM-4.5 Team 2025): Llama with partly rotated heads, and experts chosen as in DeepSeek-V3.

    s = sigmoid(router(x)); the top_k largest of s + bias are chosen
    mlp(x) = scale * sum of s_e / (sum of those chosen) expert_e(x) + shared(x)

The first layers are dense. Files end with a layer that predicts a token more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tenon.models import deepseek_v3, llama
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, read_decoder_config
from tenon.models._experts import GROUPED_FIELDS, SHARED_WEIGHTS, with_grouped_experts
from tenon.models._experts import WEIGHTS as EXPERT_WEIGHTS
from tenon.models._mtp import WEIGHTS as MTP_WEIGHTS

ARCHITECTURES = ("Glm4MoeForCausalLM",)
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("glm4moe",)
WEIGHTS = {
    **llama.WEIGHTS,
    **EXPERT_WEIGHTS,
    **SHARED_WEIGHTS,
    **MTP_WEIGHTS,
    "model.layers.{i}.post_attention_layernorm": "blk.{i}.post_attention_norm",
    "model.layers.{i}.self_attn.q_norm": "blk.{i}.attn_q_norm",
    "model.layers.{i}.self_attn.k_norm": "blk.{i}.attn_k_norm",
    "model.layers.{i}.mlp.gate.e_score_correction_bias": "blk.{i}.exp_probs_b.bias",
}
GGUF_FIELDS = GROUPED_FIELDS
IGNORED = llama.IGNORED

TINY: dict[str, Any] = {
    **llama.TINY,
    "model_type": "glm4_moe",
    "architectures": ["Glm4MoeForCausalLM"],
    "head_dim": 32,
    "partial_rotary_factor": 0.5,
    "attention_bias": True,
    "use_qk_norm": True,
    "first_k_dense_replace": 1,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 64,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
}

SIZES: dict[str, dict[str, Any]] = {
    "106B-A12B": {  # GLM-4.5-Air
        **TINY,
        "head_dim": 128,
        "hidden_size": 4096,
        "intermediate_size": 10944,
        "num_hidden_layers": 46,
        "num_attention_heads": 96,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rope_theta": 1000000.0,
        "use_qk_norm": False,
        "n_routed_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 1408,
        "routed_scaling_factor": 1.0,
    },
    "355B-A32B": {  # GLM-4.5 and 4.6, but for their contexts: 131072 and 202752
        **TINY,
        "head_dim": 128,
        "hidden_size": 5120,
        "intermediate_size": 12288,
        "num_hidden_layers": 92,
        "num_attention_heads": 96,
        "num_key_value_heads": 8,
        "max_position_embeddings": 202752,
        "rope_theta": 1000000.0,
        "first_k_dense_replace": 3,
        "n_routed_experts": 160,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 1536,
    },
}


class Glm4MoE(deepseek_v3.DeepseekV3):
    attention = llama.Llama.attention


MODEL = Glm4MoE


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    config, fields, gguf = read_decoder_config(checkpoint), checkpoint.fields, checkpoint.kind == "gguf"
    if gguf:  # GLM-4.5 normalises heads, GLM-4.5-Air does not
        names = checkpoint.file.tensors
        norms = any(name.endswith(("attn_q_norm.weight", "attn_k_norm.weight")) for name in names)
        layers = config.num_layers - fields.whole("nextn_predict_layers", 0, low=0)
        if layers < 1:
            raise fields.error("nextn_predict_layers", f"leaves none of {config.num_layers} layers")
        config = replace(config, num_layers=layers, qkv_bias=True)
    else:
        norms = fields.flag("use_qk_norm", False)

    config = replace(config, head_norms=norms, output_bias=False)
    return with_grouped_experts(config, checkpoint, renormalize=True, scores="sigmoid", floor=1e-20)
