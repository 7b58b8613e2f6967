"""DeepSeek-V3, R1 and V3.1 (DeepSeek-AI 2024): latent attention, and experts chosen out of the best groups.

    x = embed(tokens)
    for each layer:  x += latent attention(norm(x));  x += mlp(norm(x))

    s = sigmoid(router(x)); of the top groups by s + bias, the top_k experts by s + bias are chosen
    mlp(x) = scale * sum of s_e / (sum of those chosen) expert_e(x) + shared(x)

The first layers are dense. Files end with a layer that predicts a token more.
"""

from __future__ import annotations

from typing import Any

from tenon.core.spec import ModelSpec
from tenon.layers.mla import LatentAttention
from tenon.layers.moe import MoE, MoEShape
from tenon.layers.rope import Rope
from tenon.layers.weights import Weights
from tenon.models import _mla, llama
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig
from tenon.models._experts import GROUPED_FIELDS, SHARED_WEIGHTS, with_grouped_experts
from tenon.models._experts import WEIGHTS as EXPERT_WEIGHTS
from tenon.models._mtp import WEIGHTS as MTP_WEIGHTS
from tenon.models._mtp import predicting_layers

ARCHITECTURES = ("DeepseekV3ForCausalLM",)
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("deepseek2",)  # of V2 as well
WEIGHTS = {
    **llama.WEIGHTS,
    **EXPERT_WEIGHTS,
    **SHARED_WEIGHTS,
    **MTP_WEIGHTS,
    **_mla.WEIGHTS,
    "model.layers.{i}.mlp.gate.e_score_correction_bias": "blk.{i}.exp_probs_b.bias",
}
GGUF_FIELDS = {**GROUPED_FIELDS, **_mla.GGUF_FIELDS}
IGNORED = llama.IGNORED
SIGMOID = 2  # how GGUF says what scores are

TINY: dict[str, Any] = {
    "model_type": "deepseek_v3",
    "architectures": ["DeepseekV3ForCausalLM"],
    "vocab_size": 160,
    "hidden_size": 64,
    "intermediate_size": 96,
    "moe_intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 96,
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 24,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_shared_experts": 1,
    "n_group": 4,
    "topk_group": 2,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "first_k_dense_replace": 1,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "eos_token_id": 2,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    },
}

SIZES: dict[str, dict[str, Any]] = {
    "671B": {
        **TINY,
        "vocab_size": 129280,
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": 61,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "n_routed_experts": 256,
        "num_experts_per_tok": 8,
        "n_group": 8,
        "topk_group": 4,
        "first_k_dense_replace": 3,
        "max_position_embeddings": 163840,
        "rope_parameters": {
            **TINY["rope_parameters"],
            "factor": 40,
            "original_max_position_embeddings": 4096,
        },
    },
}
row_order = _mla.row_order


def gguf_metadata(config: dict[str, Any]) -> dict[str, Any]:
    return {**_mla.gguf_metadata(config), "expert_gating_func": SIGMOID}


class DeepseekV3(llama.Llama):
    def __init__(self, config: DecoderConfig, spec: ModelSpec, weights: Weights, num_positions: int) -> None:
        super().__init__(config, spec, weights, num_positions)
        self.mtp = predicting_layers(
            weights, config, lambda layer, number: self.block(config, layer, self.ropes[-1], number)
        )

    def attention(self, config: DecoderConfig, layer: Weights, rope: Rope, number: int) -> llama.Attending:
        assert isinstance(config, _mla.LatentConfig)
        return LatentAttention(layer.at("self_attn"), config.latent, rope)

    def experts(self, shape: MoEShape, layer: Weights) -> llama.FeedForward:
        mlp = layer.at("mlp")
        bias_E = mlp.vector("gate.e_score_correction_bias", shape.routing.num_experts)
        return MoE(mlp, shape, bias_E=bias_E)


MODEL = DeepseekV3


def fits(checkpoint: Checkpoint) -> bool:
    return checkpoint.kind != "gguf" or checkpoint.fields.get("expert_gating_func") == SIGMOID


def read_config(checkpoint: Checkpoint) -> _mla.LatentConfig:
    config = _mla.read_latent_config(checkpoint)
    return with_grouped_experts(config, checkpoint, renormalize=True, scores="sigmoid", floor=1e-20)
