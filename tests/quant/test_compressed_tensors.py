"""Checkpoints in FP8 as llm-compressor writes them, with a scale for each row, matrix or block."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tenon.errors import ModelFileError, UnsupportedModel
from tenon.models import load_model, pack_model
from tenon.resolve import resolve
from tests.models.families import edit_json, make, save_fp8, save_safetensors, tiny
from tests.models.test_parity import check

ALL = 1 << 20
BLOCKS = {"channel": (1, ALL), "tensor": (ALL, ALL), "block": (32, 64)}


def save(reference, directory, strategy):
    """What the files hold is what the reference has afterwards."""
    files = save_fp8(reference, directory, BLOCKS[strategy])
    (path,) = files.paths
    tensors = {}
    for name, tensor in load_file(path).items():
        if not name.endswith("_scale_inv"):
            tensors[name] = tensor
            continue
        scales = tensor.reshape(1) if strategy == "tensor" else tensor
        tensors[name.removesuffix("_inv")] = scales
    save_file(tensors, path)
    weights = {"num_bits": 8, "type": "float", "symmetric": True, "dynamic": False, "strategy": strategy}
    if strategy == "block":
        weights["block_structure"] = list(BLOCKS["block"])
    activations = {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    configure(
        files, quant_method="compressed-tensors", format="float-quantized", config_groups={"group_0": group}
    )
    return files


def configure(files, **settings):
    edit_json(files.directory / "config.json", {"quantization_config": {"ignore": ["lm_head"], **settings}})


@pytest.mark.parametrize("strategy", BLOCKS)
@pytest.mark.parametrize("family", ["qwen3", "glm4_moe"])
def test_it_matches_transformers(family, strategy, tmp_path, seed):
    torch.manual_seed(seed)
    reference, rng = make(tiny(family), seed), np.random.default_rng(seed)
    files = save(reference, tmp_path / "files", strategy)
    check(files, reference, rng, length=20)
    packed = resolve(str(pack_model(files, tmp_path / "packed", "float32")))
    check(packed, reference, rng, length=20)


def test_rows_in_another_order(tmp_path, seed):
    """Scales go with them."""
    torch.manual_seed(seed)
    reference = make(tiny("ernie4_5"), seed)
    check(save(reference, tmp_path, "channel"), reference, np.random.default_rng(seed), length=20)


@pytest.mark.parametrize(("strategy", "format"), [("tensor", "f8_d32"), ("channel", "bf16")])
def test_what_stays_in_eight_bits_and_what_is_said(strategy, format, tmp_path, seed):
    torch.manual_seed(seed)
    files = save(make(tiny("qwen3"), seed), tmp_path, strategy)
    model = load_model(files)
    assert set(model.blocks[0].attention.qkv.weight.packed_NK.formats) == {format}
    said = " held as bfloat16: 14 of 14 matrices in FP8, first 'model.layers.0.self_attn.q_proj.weight'"
    expected = "compressed-tensors" + (f";{said}" if format == "bf16" else "")
    assert model.spec.stored == expected
    eight = load_model(files, quantization="int8")
    assert set(eight.blocks[0].attention.qkv.weight.packed_NK.formats) == {"s8_d16"}


def test_a_missing_or_misshaped_scale_is_named(tmp_path, seed):
    torch.manual_seed(seed)
    files = save(make(tiny("qwen3"), seed), tmp_path, "channel")
    (path,) = files.paths
    name, whole = "model.layers.1.mlp.down_proj.weight_scale", load_file(path)
    save_file({key: value for key, value in whole.items() if key != name}, path)
    with pytest.raises(ModelFileError, match=f"'{name}' is missing"):
        load_model(files)
    save_file(whole | {name: whole[name][1:].contiguous()}, path)
    with pytest.raises(ModelFileError, match=f"'{name}' has shape 63x1; .* says 64x1"):
        load_model(files)


def test_experts_with_rows_and_columns_exchanged_are_refused(tmp_path, seed):
    files = save_safetensors(make(tiny("llama4"), seed), tmp_path)
    (path,) = files.paths
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("experts.gate_up_proj"))
    save_file(tensors | {name: tensors[name].to(torch.float8_e4m3fn)}, path)
    group = {"weights": {"strategy": "channel"}}
    configure(files, quant_method="compressed-tensors", config_groups={"group_0": group})
    with pytest.raises(UnsupportedModel, match=f"'{name}' is in FP8 with rows and columns exchanged"):
        load_model(files)


@pytest.mark.parametrize(
    ("settings", "weights", "says"),
    [
        ({"config_groups": {}}, {}, "config_groups that describe weights"),
        ({"config_groups": {"a": {"weights": None}}}, {}, "weights in config_groups described"),
        ({"format": "pack-quantized"}, {}, "format 'float-quantized', not 'pack-quantized'"),
        ({"sparsity_config": {"format": "sparse-24"}}, {}, "sparsity_config"),
        ({}, {"num_bits": 4}, "num_bits of weights 8, not 4"),
        ({}, {"type": "int"}, "type of weights 'float', not 'int'"),
        ({}, {"symmetric": False}, "symmetric of weights True, not False"),
        ({}, {"strategy": "tensor_group"}, "strategy of weights 'channel', 'tensor' or 'block'"),
        ({}, {"strategy": "block", "block_structure": [100, 128]}, "block_structure .* multiples of 16"),
        ({}, {"strategy": "tensor"}, "differ in strategy"),
    ],
)
def test_settings_that_are_not_read(settings, weights, says, tmp_path, seed):
    files = save_safetensors(make(tiny("qwen3"), seed), tmp_path)
    groups = {"a": {"weights": {"strategy": "channel", **weights}}}
    if weights == {"strategy": "tensor"}:
        groups["b"] = {"weights": {"strategy": "channel"}}
    configure(files, **{"quant_method": "compressed-tensors", "config_groups": groups, **settings})
    assert json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    with pytest.raises(UnsupportedModel, match=says):
        load_model(files)
