"""Logits against transformers, float32, on tiny random models: every family, format, scaling of rope and way
to cut the work into steps."""

from __future__ import annotations

import logging

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from tenon.models import load_model
from tests.models.driver import Driver
from tests.models.families import (
    FAMILIES,
    make,
    quantize,
    reference_logits,
    save_gguf,
    save_safetensors,
    tiny,
)

FLOAT32_TOLERANCE = 1e-4  # of the largest logit

VARIANTS = {
    **{family: tiny(family) for family in FAMILIES},
    "mistral": {**tiny("llama"), "model_type": "mistral", "sliding_window": 40, "head_dim": 32},
    "llama-biases": {**tiny("llama"), "attention_bias": True, "mlp_bias": True},
    "llama-tied": {**tiny("llama"), "tie_word_embeddings": True, "num_key_value_heads": 4},
    "qwen2-untied": {**tiny("qwen2"), "tie_word_embeddings": False, "num_key_value_heads": 1},
    "gemma3-listed": {
        **tiny("gemma3"),
        "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "query_pre_attn_scalar": 24,
    },
    "qwen2-windows": {
        **tiny("qwen2"),
        "use_sliding_window": True,
        "sliding_window": 40,
        "max_window_layers": 1,
    },
    "ernie4_5-biases": {**tiny("ernie4_5"), "use_bias": True},
    "qwen3-tied": {**tiny("qwen3"), "tie_word_embeddings": True, "attention_bias": True},
    "qwen3_moe-many": {
        **tiny("qwen3_moe"),
        "num_experts": 70,
        "num_experts_per_tok": 6,
        "norm_topk_prob": False,
    },
    "qwen3_moe-one": {**tiny("qwen3_moe"), "num_experts": 1, "num_experts_per_tok": 1},
    "qwen3_moe-dense": {
        **tiny("qwen3_moe"),
        "num_hidden_layers": 4,
        "decoder_sparse_step": 2,
        "mlp_only_layers": [3],
    },
    "glm4_moe-groups": {
        **tiny("glm4_moe"),
        "n_routed_experts": 16,
        "n_group": 4,
        "topk_group": 2,
        "norm_topk_prob": False,
        "n_shared_experts": 2,
        "use_qk_norm": False,
        "num_hidden_layers": 3,
    },
    "deepseek_v2-lite": {
        **tiny("deepseek_v2"),
        "q_lora_rank": None,
        "topk_method": "greedy",
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 0,
        "n_shared_experts": 2,
    },
    "deepseek_v3-halves": {
        **tiny("deepseek_v3"),
        "rope_interleave": False,
        "attention_bias": True,
        "norm_topk_prob": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
    },
    "longcat_flash-no-identities": {**tiny("longcat_flash"), "zero_expert_num": 0, "num_layers": 1},
    "deepseek_v32-one": {**tiny("deepseek_v32"), "index_topk": 1},
    "ernie4_5_moe-some": {
        **tiny("ernie4_5_moe"),
        "num_hidden_layers": 4,
        "moe_layer_interval": 2,
        "moe_num_shared_experts": 1,
        "tie_word_embeddings": False,
    },
    "phi3-long": {  # Phi-4-mini
        **tiny("phi3"),
        "tie_word_embeddings": True,
        "sliding_window": 600,  # more than there are positions
        "original_max_position_embeddings": 64,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "short_factor": [1.0, 1.1, 1.2, 1.5, 2.0, 3.0],
            "long_factor": [1.0, 1.3, 2.0, 4.5, 9.0, 20.0],
        },
    },
    "gemma4-small": {  # as E2B
        **tiny("gemma4"),
        "attention_k_eq_v": False,
        "use_double_wide_mlp": False,
        "enable_moe_block": False,
        "num_experts": None,
        "num_kv_shared_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "final_logit_softcapping": None,
    },
    "gemma4-large": {  # as 31B
        **tiny("gemma4"),
        "enable_moe_block": False,
        "num_experts": None,
        "num_key_value_heads": 4,  # with windows twice as many numbers as without
        "global_head_dim": 32,
        "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 0,
        "layer_types": None,
    },
    "gemma4-experts": {  # as 26B-A4B
        **tiny("gemma4"),
        "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 0,
        "use_double_wide_mlp": False,
        "top_k_experts": 3,
    },
    "minicpm-long": {
        **tiny("minicpm"),
        "tie_word_embeddings": False,
        "rope_scaling": {**tiny("minicpm")["rope_scaling"], "original_max_position_embeddings": 64},
    },
    "gpt_oss-clamped": {
        **tiny("gpt_oss"),
        "num_hidden_layers": 3,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
        "num_experts_per_tok": 3,
        "swiglu_limit": 1.5,
        "swiglu_alpha": 1.2,
    },
    "llama4-dense": {
        **tiny("llama4"),
        "num_hidden_layers": 4,
        "num_local_experts": 128,
        "interleave_moe_layer_step": 2,
        "no_rope_layer_interval": 4,
        "num_experts_per_tok": 2,
        "use_qk_norm": False,
        "tie_word_embeddings": True,
    },
    "llama4-untuned": {
        **tiny("llama4"),
        "num_hidden_layers": 3,
        "moe_layers": [1],
        "no_rope_layers": [0, 1, 0],
        "attn_temperature_tuning": False,
        "num_experts_per_tok": 3,
    },
    "granitemoehybrid-rope": {
        **tiny("granitemoehybrid"),
        "position_embedding_type": "rope",
        "attention_bias": True,
        "mamba_proj_bias": True,
        "mamba_conv_bias": False,
        "mamba_n_groups": 1,
        "mamba_d_conv": 2,
        "time_step_limit": [0.5, 2.0],
    },
    "granitemoe": {
        **{key: value for key, value in tiny("granitemoeshared").items() if "shared" not in key},
        "model_type": "granitemoe",
        "architectures": ["GraniteMoeForCausalLM"],
        "attention_bias": True,
    },
    "granitemoehybrid-dense": {**tiny("granitemoehybrid"), "num_local_experts": 0},
    "granitemoehybrid-attention": {
        **tiny("granitemoehybrid"),
        "layer_types": ["attention"] * 4,
        "position_embedding_type": "rope",
        "num_local_experts": 0,
        "tie_word_embeddings": False,
    },
    "qwen3_next-listed": {
        **tiny("qwen3_next"),
        "num_hidden_layers": 3,
        "layer_types": ["full_attention", "linear_attention", "linear_attention"],
        "attention_bias": True,
        "linear_conv_kernel_dim": 2,
        "linear_num_key_heads": 4,
        "mlp_only_layers": [1],
        "norm_topk_prob": False,
    },
    "qwen2_moe-norm": {**tiny("qwen2_moe"), "norm_topk_prob": True, "num_experts_per_tok": 4},
}

ALL_EXPERTS = {
    "deepseek_v2": {"num_experts_per_tok": 8, "topk_group": 4},
    "deepseek_v3": {"num_experts_per_tok": 8, "topk_group": 4},
    "deepseek_v32": {"num_experts_per_tok": 8, "topk_group": 4, "index_topk": 512},  # and all tokens
    "ernie4_5_moe": {"moe_k": 4},
    "gemma4": {"top_k_experts": 4},
    "glm4_moe": {"num_experts_per_tok": 4},
    "gpt_oss": {"num_experts_per_tok": 4},
    "llama4": {"num_experts_per_tok": 4},
    "granitemoehybrid": {"num_experts_per_tok": 4},
    "granitemoeshared": {"num_experts_per_tok": 4},
    "longcat_flash": {"moe_topk": 9},
    "mixtral": {"num_experts_per_tok": 4},
    "olmoe": {"num_experts_per_tok": 4},
    "qwen2_moe": {"num_experts_per_tok": 4},
    "qwen3_moe": {"num_experts_per_tok": 4},
    "qwen3_next": {"num_experts_per_tok": 4},
}
NOT_IN_GGUF = (
    "mistral",  # is called llama
    "qwen3_next-listed",  # has no place for a list of layers
    "granitemoe",  # is called granitemoeshared in tests
    "granitemoehybrid-rope",  # nor for biases and limits
    "granitemoehybrid-attention",  # is called granite
    "qwen3_moe-dense",  # has no place for which layers have experts
    "gemma3-listed",  # nor for which have windows
    "gpt_oss-clamped",
    "llama4-untuned",
    "qwen2-windows",
    "ernie4_5-biases",
    "olmo3",
    "deepseek_v3-halves",
    "deepseek_v32",
    "deepseek_v32-one",
    "longcat_flash",
    "longcat_flash-no-identities",
)

ORIGINAL = 64
ROPES = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": ORIGINAL,
    },
    "llama3-step": {
        "rope_type": "llama3",
        "factor": 16.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 1.0,
        "original_max_position_embeddings": ORIGINAL,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL},
    "yarn-attention": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": ORIGINAL,
        "attention_factor": 0.7,
        "beta_fast": 16,
        "beta_slow": 2,
    },
    "yarn-mscale": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": ORIGINAL,
        "mscale": 1.0,
        "mscale_all_dim": 0.5,
        "truncate": False,
    },
}


@pytest.fixture(autouse=True)
def _quiet(caplog):
    """Reference ops warn once; that is not what these tests are about."""
    caplog.set_level(logging.ERROR, "tenon.ops.select")


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


def error(logits, expected):
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


def prompt(rng, length, vocab=160):
    return rng.integers(0, vocab, length).tolist()


def check(files, reference, rng, length=90, **options):
    tokens = prompt(rng, length)
    driver = Driver(load_model(files, "float32", **options), rng)
    (logits_SV,) = driver.step([(1, tokens)])
    assert error(logits_SV, reference_logits(reference, tokens)) < FLOAT32_TOLERANCE


@pytest.mark.parametrize("variant", VARIANTS)
def test_safetensors_match_transformers(variant, tmp_path, seed, rng):
    reference = make(VARIANTS[variant], seed)
    check(save_safetensors(reference, tmp_path), reference, rng)


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v not in NOT_IN_GGUF])
def test_gguf_matches_transformers(variant, tmp_path, seed, rng):
    reference = make(VARIANTS[variant], seed)
    check(save_gguf(reference, tmp_path / "m.gguf"), reference, rng)


@pytest.mark.parametrize(
    "kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]
)
def test_quantized_gguf_matches_transformers(kind, tmp_path, seed, rng):
    config = {**tiny("llama"), "hidden_size": 256, "intermediate_size": 256}
    reference = make(config, seed)
    files = save_gguf(reference, tmp_path / "m.gguf", lambda name: Type[kind])
    check(files, reference, rng, length=40)


def test_stacked_layers_of_different_types(tmp_path, seed, rng):
    """As files of mixed quality have it: v in more bits than q and k, the head in yet another type."""
    types = {"attn_q": Type.Q4_0, "attn_k": Type.Q4_1, "attn_v": Type.Q8_0, "ffn_up": Type.BF16}
    types |= {"token_embd": Type.Q8_0, "ffn_gate": Type.Q5_1}

    def pick(name):
        return next((kind for part, kind in types.items() if part in name), Type.F32)

    reference = make(tiny("qwen2"), seed)
    check(save_gguf(reference, tmp_path / "m.gguf", pick), reference, rng, length=40)


@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_rope_scalings_from_safetensors(rope, family, tmp_path, seed, rng):
    scaling = {"rope_theta": 5000.0, **ROPES[rope]}
    reference = make({**tiny(family), "rope_parameters": scaling}, seed)
    check(save_safetensors(reference, tmp_path), reference, rng, length=3 * ORIGINAL)


def test_dynamic_rope(tmp_path, seed, rng):
    """The longest admitted context decides: at that length, and below the original one, both agree."""
    scaling = {"rope_type": "dynamic", "rope_theta": 5000.0, "factor": 4.0}
    config = {**tiny("llama"), "max_position_embeddings": ORIGINAL, "rope_parameters": scaling}
    reference = make(config, seed)
    files = save_safetensors(reference, tmp_path)
    assert load_model(files, "float32").spec.max_position == 4 * ORIGINAL
    check(files, reference, rng, length=150, max_model_len=150)
    check(files, make(config, seed), rng, length=ORIGINAL, max_model_len=ORIGINAL)


@pytest.mark.parametrize("variant", ["phi3-long", "minicpm-long"])
def test_longrope(variant, tmp_path, seed, rng):
    """Short factors where no sequence can be longer than the original context, long ones otherwise."""
    reference = make(VARIANTS[variant], seed)
    files = save_safetensors(reference, tmp_path)
    check(files, reference, rng, length=64, max_model_len=64)
    check(files, reference, rng, length=65, max_model_len=65)


def test_rope_scalings_from_gguf(tmp_path, seed, rng):
    def scaled(name, family, rope, **extra):
        config = {**tiny(family), "rope_parameters": {"rope_theta": 5000.0, **rope}}
        reference = make(config, seed)
        check(save_gguf(reference, tmp_path / name, **extra), reference, rng, length=3 * ORIGINAL)

    scaled("linear.gguf", "llama", ROPES["linear"])
    scaled("yarn.gguf", "qwen2", ROPES["yarn"])

    # Llama 3's scaling comes as a tensor of divisors of the frequencies.
    config = {**tiny("llama"), "rope_parameters": {"rope_theta": 5000.0, **ROPES["llama3"]}}
    frequencies = make(config, seed).model.rotary_emb.inv_freq.double().numpy()
    plain = 5000.0 ** (-np.arange(0, 16, 2) / 16)
    divisors = (plain / frequencies).astype(np.float32)
    scaled("llama3.gguf", "llama", ROPES["llama3"], _rope_freqs=divisors)


@pytest.mark.parametrize("family", FAMILIES)
def test_ragged_steps_match_whole_sequences(family, tmp_path, seed, rng):
    """Prompts in chunks and single tokens, of several requests in one batch, in whatever order."""
    reference = make(tiny(family), seed)
    driver = Driver(load_model(save_safetensors(reference, tmp_path), "float32"), rng)
    sequences = [prompt(rng, n) for n in (70, 33, 101, 5)]
    got = [[] for _ in sequences]
    while unfinished := [i for i, s in enumerate(sequences) if driver.lengths[i] < len(s)]:
        chosen = rng.permutation(unfinished)[: rng.integers(1, 5)]
        lengths = [int(rng.choice([1, 7, 32, 40])) for _ in chosen]
        work = [(int(i), sequences[i][driver.lengths[i] :][:n]) for i, n in zip(chosen, lengths, strict=True)]
        for (i, _), logits_SV in zip(work, driver.step(work), strict=True):
            got[i].append(logits_SV)
    for tokens, parts in zip(sequences, got, strict=True):
        assert error(np.concatenate(parts), reference_logits(reference, tokens)) < FLOAT32_TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_stays_close(family, tmp_path, seed, rng):
    """Weights, activations and KV have eight bits: as wrong as transformers is in bfloat16, whatever that is.

    In the median over tokens: single ones can be off by anything, when attention is undecided or a norm makes
    much of next to nothing. Of experts every token gets all: else some went to one that scored almost the
    same."""
    reference = make({**tiny(family), **ALL_EXPERTS.get(family, {})}, seed)
    tokens = prompt(rng, 64)
    driver = Driver(load_model(save_safetensors(reference, tmp_path)), rng)
    logits_SV = np.concatenate([driver.step([(0, part)])[0] for part in (tokens[:50], tokens[50:])])
    expected_SV = reference_logits(reference, tokens)
    theirs_SV = reference_logits(reference.bfloat16(), tokens)
    ours, theirs = (np.median(np.linalg.norm(x - expected_SV, axis=1)) for x in (logits_SV, theirs_SV))
    assert ours < 1.5 * theirs


def test_the_oracle_itself():
    """The random K-quant blocks have a sensible spread, or the tests above would prove little."""
    values = np.zeros((64, 256), np.float32)
    for kind in (Type.Q4_K, Type.Q5_K, Type.Q6_K):
        weights = gguf.quants.dequantize(quantize(values, kind), kind)
        assert 0.03 < weights.std() < 0.3
