"""GPT-OSS (OpenAI 2025): experts in MXFP4, biases everywhere, attention with sinks.

    x += o(attention(rope(qkv(norm(x)))))     every other layer sees a sliding window only
    x += sum over the top_k largest router logits of softmax(those logits)_e expert_e(norm(x))
    expert(x) = down(gate sigmoid(1.702 gate) (up + 1)),   gate at most 7, up between -7 and 7

Each head has a sink: one more score, learned, that takes weight from the others. Files have the rows of gate
and up in alternation: MXFP4 as it was published, or floats with columns and rows exchanged.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tenon import ops
from tenon.layers.moe import MoE, MoEShape
from tenon.layers.weights import Stacked, Weights
from tenon.models import llama
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, alternating_windows, read_decoder_config, read_windows
from tenon.models._experts import GGUF_FIELDS as EXPERT_FIELDS
from tenon.models._experts import read_experts

ARCHITECTURES = ("GptOssForCausalLM",)
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("gpt-oss",)
WEIGHTS = {
    **llama.WEIGHTS,
    "model.layers.{i}.post_attention_layernorm": "blk.{i}.post_attention_norm",
    "model.layers.{i}.self_attn.sinks": "blk.{i}.attn_sinks.weight",
    "model.layers.{i}.mlp.router": "blk.{i}.ffn_gate_inp",
    "model.layers.{i}.mlp.experts.gate_proj": "blk.{i}.ffn_gate_exps",
    "model.layers.{i}.mlp.experts.up_proj": "blk.{i}.ffn_up_exps",
    "model.layers.{i}.mlp.experts.down_proj": "blk.{i}.ffn_down_exps",
}
GGUF_FIELDS = {
    **EXPERT_FIELDS,
    "num_local_experts": EXPERT_FIELDS["num_experts"],
    "intermediate_size": ("feed_forward_length", "expert_feed_forward_length"),
}
IGNORED = llama.IGNORED
EVERY = 2  # layers, of which one sees everything
STACKED = Stacked("columns", alternating=True)

TINY: dict[str, Any] = {
    **llama.TINY,
    "model_type": "gpt_oss",
    "architectures": ["GptOssForCausalLM"],
    "intermediate_size": 64,
    "num_hidden_layers": EVERY,
    "head_dim": 32,
    "attention_bias": True,
    "sliding_window": 40,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "swiglu_limit": 7.0,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 150000.0,
        "factor": 8.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 64,
    },
}

_PUBLISHED: dict[str, Any] = {
    **TINY,
    "quantization_config": {"quant_method": "mxfp4"},
    "head_dim": 64,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "sliding_window": 128,
    "num_experts_per_tok": 4,
    "rope_parameters": {
        **TINY["rope_parameters"],
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
    },
}
SIZES: dict[str, dict[str, Any]] = {
    "20B": {**_PUBLISHED, "num_hidden_layers": 24, "num_local_experts": 32},
    "120B": {**_PUBLISHED, "num_hidden_layers": 36, "num_local_experts": 128},
}


class GptOss(llama.Llama):
    def experts(self, shape: MoEShape, layer: Weights) -> llama.FeedForward:
        return MoE(layer.at("mlp"), shape, router="router")


MODEL = GptOss


def gguf_metadata(config: dict[str, Any]) -> dict[str, Any]:
    """The rope, which config.json has as an object."""
    rope = config["rope_parameters"]
    return {
        "rope.freq_base": rope["rope_theta"],
        "rope.scaling.type": rope["rope_type"],
        "rope.scaling.factor": rope["factor"],
        "rope.scaling.original_context_length": rope["original_max_position_embeddings"],
    }


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    config, fields = read_decoder_config(checkpoint), checkpoint.fields
    gguf = checkpoint.kind == "gguf"
    alpha, limit = fields.number("swiglu_alpha", 1.702), fields.number("swiglu_limit", 7.0)
    if gguf:  # says how long the window is, and nothing of the rope's ramp, which is not cut to whole pairs
        windows = alternating_windows(fields.whole("attention.sliding_window"), config.num_layers, EVERY)
        rope = replace(config.rope, truncate=False)
        config = replace(config, windows=windows, rope=rope, qkv_bias=True, output_bias=True)
    else:
        config = replace(config, windows=read_windows(fields, every=EVERY))
    inner = "expert_feed_forward_length" if gguf else "intermediate_size"
    experts = read_experts(checkpoint, config.width, count="num_local_experts", renormalize=True, inner=inner)
    experts = replace(experts, stacked=STACKED, biases=True, clamp=ops.Clamp(alpha, limit))
    return replace(config, sinks=True, experts=experts)
