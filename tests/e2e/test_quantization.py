"""What quantising at load costs in likelihood, on the default model as bf16 safetensors.

That model comes in Q4_1, and its own groups would be found again exactly. So its channels are permuted, which
is the same model, but groups of 32 neighbours then mix what 32 groups had.
"""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tenon.core.files import ModelFiles
from tenon.formats.gguf import open_gguf
from tenon.formats.writing import NewTensor, safetensors_layout
from tenon.kernels import cpu
from tenon.models import load_model
from tenon.models.llama import SIZES, WEIGHTS, interleaved_pairs
from tests.e2e.likelihood import mean_nll

if reason := cpu.support():
    pytest.skip(reason, allow_module_level=True)

TEXTS = json.loads((Path(__file__).parents[1] / "fixtures" / "smollm2_reference.json").read_text())["texts"]
CONFIG = SIZES["135M"] | {"vocab_size": 49152}
TEXT = "bread.txt"
BOUNDS = {None: 0.005, "int8": 0.005, "int4": 0.08}  # relative to transformers in float32


@pytest.fixture(scope="module")
def permuted(smollm2_gguf, tmp_path_factory):
    """The model as a directory of bf16 safetensors, its channels in another order."""
    directory = tmp_path_factory.mktemp("permuted")
    tensors = {name: value.astype(ml_dtypes.bfloat16) for name, value in _weights(smollm2_gguf)}
    new = [NewTensor(name, "bf16", value.shape) for name, value in tensors.items()]
    layout = safetensors_layout(new)
    with (directory / "model.safetensors").open("wb") as file:
        file.write(layout.header)
        for value in tensors.values():
            file.write(value.tobytes())
    (directory / "config.json").write_text(json.dumps(CONFIG))
    return ModelFiles("hf", (directory / "model.safetensors",), "permuted", directory)


def _weights(path):
    """HF name and values of each tensor."""
    rng = np.random.default_rng(5)
    width, inner = rng.permutation(CONFIG["hidden_size"]), rng.permutation(CONFIG["intermediate_size"])
    source = open_gguf((path,)).tensors

    def get(stem, layer=None):
        return source[f"{WEIGHTS[stem].format(i=layer)}.weight"].raw().dequantize()

    yield "model.embed_tokens.weight", get("model.embed_tokens")[:, width]
    yield "model.norm.weight", get("model.norm")[width]
    for i in range(CONFIG["num_hidden_layers"]):
        head_dims = rng.permutation(64)  # of v, the same for all heads
        rows = {
            "self_attn.q_proj": interleaved_pairs(9, 64),
            "self_attn.k_proj": interleaved_pairs(3, 64),
            "self_attn.v_proj": _in_heads(3, head_dims),
            "self_attn.o_proj": width,
            "mlp.gate_proj": inner,
            "mlp.up_proj": inner,
            "mlp.down_proj": width,
        }
        columns = {"self_attn.o_proj": _in_heads(9, head_dims), "mlp.down_proj": inner}
        for name, order in rows.items():
            weight = get(f"model.layers.{{i}}.{name}", i)
            yield f"model.layers.{i}.{name}.weight", weight[order][:, columns.get(name, width)]
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{i}.{name}.weight", get(f"model.layers.{{i}}.{name}", i)[width]


def _in_heads(num_heads, order):
    return np.concatenate([head * 64 + order for head in range(num_heads)])


@pytest.mark.parametrize("quantization", BOUNDS)
def test_likelihood_of_texts(permuted, quantization, seed):
    model = load_model(permuted, quantization=quantization, max_model_len=2048)
    nll, expected = mean_nll(model, TEXTS[TEXT]["token_ids"], seed), TEXTS[TEXT]["mean_nll"]
    print(f"{quantization}: {nll:.5f} nats, float32 {expected:.5f}: {nll / expected - 1:+.4%}")
    assert abs(nll / expected - 1) < BOUNDS[quantization]
