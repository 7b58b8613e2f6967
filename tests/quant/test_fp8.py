"""Checkpoints in FP8 with scales of blocks, as DeepSeek-V3 and Qwen3's -FP8 files are published."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tenon import ops
from tenon.errors import ModelFileError, UnsupportedModel
from tenon.models import load_model, pack_model
from tenon.resolve import resolve
from tests.models.families import edit_json, make, save_fp8, tiny
from tests.models.test_parity import check

FAMILIES = ["qwen3", "deepseek_v3"]
DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


@pytest.fixture
def qwen3(tmp_path, seed):
    """The reference, which has the numbers of the files, and the files."""
    torch.manual_seed(seed)
    reference = make(tiny("qwen3"), seed)
    return reference, save_fp8(reference, tmp_path)


def change(files, edit):
    (path,) = files.paths
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def configure(files, **settings):
    path = files.directory / "config.json"
    quantization = json.loads(path.read_text())["quantization_config"]
    edit_json(path, {"quantization_config": quantization | settings})


@pytest.mark.parametrize("block", [(32, 32), (128, 128), (16, 64)])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_matches_transformers(family, block, tmp_path, seed, rng):
    torch.manual_seed(seed)
    reference = make(tiny(family), seed)
    check(save_fp8(reference, tmp_path, block), reference, rng, length=40)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_models(family, tmp_path, seed, rng):
    torch.manual_seed(seed)
    reference = make(tiny(family), seed)
    files = save_fp8(reference, tmp_path / "files")
    packed = resolve(str(pack_model(files, tmp_path / "packed", "float32")))
    check(packed, reference, rng, length=40)


def test_layers_stay_in_eight_bits(tmp_path, seed, qwen3):
    for activations in ("bfloat16", "int16"):
        for block in load_model(qwen3[1], activations=activations).blocks:
            for linear in (block.attention.qkv, block.attention.output, block.mlp.gate_up, block.mlp.down):
                packed = linear.weight.packed_NK
                assert set(packed.formats) == {"f8_d32"}
                assert not packed.act_bits
    files = save_fp8(make(tiny("deepseek_v3"), seed), tmp_path / "deepseek")
    experts = load_model(files).blocks[1].mlp.experts
    assert set(experts.gate_up.formats) == set(experts.down.formats) == {"f8_d32"}
    matrix = -(-64 * 64 // 512 * 516 // 64) * 64  # a float for 512 weights
    assert experts.gate_up.nbytes + experts.down.nbytes == 3 * 8 * matrix


def test_experts_in_one_tensor(tmp_path, seed, rng):
    """As some converters write them: [experts, rows, columns], with scales [experts, ...]."""
    torch.manual_seed(seed)
    reference = make(tiny("qwen3_moe"), seed)
    files = save_fp8(reference, tmp_path)

    def fuse(tensors):
        for layer in range(tiny("qwen3_moe")["num_hidden_layers"]):
            below = f"model.layers.{layer}.mlp.experts"
            for end in ("", "_scale_inv"):
                parts = {
                    name: [tensors.pop(f"{below}.{e}.{name}_proj.weight{end}") for e in range(experts)]
                    for name in ("gate", "up", "down")
                }
                both = [torch.cat(pair) for pair in zip(parts["gate"], parts["up"], strict=True)]
                tensors[f"{below}.gate_up_proj{end}"] = torch.stack(both)
                tensors[f"{below}.down_proj{end}"] = torch.stack(parts["down"])

    experts = tiny("qwen3_moe")["num_experts"]
    change(files, fuse)
    check(files, reference, rng, length=40)


def test_scales_may_be_bfloat16(qwen3):
    """Those of Qwen3's files are."""
    _, files = qwen3
    names = [name for name in load_file(files.paths[0]) if name.endswith("_scale_inv")]
    change(files, lambda t: t.update({name: t[name].bfloat16().float() for name in names}))
    floats = load_model(files)
    change(files, lambda t: t.update({name: t[name].bfloat16() for name in names}))
    for one, other in zip(floats.blocks, load_model(files).blocks, strict=True):
        one, other = (ops.packed_bytes(block.mlp.down.weight.packed_NK) for block in (one, other))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("quantization", "format"), [("int8", "s8_d16"), ("int4", "u4_dm16")])
def test_they_can_be_quantized_further(quantization, format, qwen3):
    model = load_model(qwen3[1], quantization=quantization)
    assert set(model.blocks[0].attention.qkv.weight.packed_NK.formats) == {format}


def test_missing_and_misshaped_scales_are_named(qwen3):
    _, files = qwen3
    name = f"{DOWN}_scale_inv"
    change(files, lambda t: t.update({name: t[name][:, 1:].contiguous()}))
    with pytest.raises(ModelFileError, match=f"'{name}' has shape"):
        load_model(files)
    change(files, lambda t: t.pop(name))
    with pytest.raises(ModelFileError, match=f"'{name}' is missing"):
        load_model(files)


def test_scales_of_floats_are_unexpected(qwen3):
    _, files = qwen3
    change(files, lambda t: t.update({DOWN: t[DOWN].float()}))
    with pytest.raises(ModelFileError, match=f"unexpected tensors: '{DOWN}_scale_inv'"):
        load_model(files)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scales_are_finite(value, qwen3):
    _, files = qwen3
    change(files, lambda t: t[f"{DOWN}_scale_inv"].fill_(value))
    with pytest.raises(ModelFileError, match=f"'{DOWN}_scale_inv' has scales that are not finite"):
        load_model(files)


def test_a_weight_that_is_nan_is_refused(qwen3):
    _, files = qwen3
    change(files, lambda t: t[DOWN].view(torch.uint8)[3].fill_(0xFF))
    with pytest.raises(ModelFileError, match=f"'{DOWN}': a weight is NaN"):
        load_model(files)


def test_other_blocks_than_the_files_have(qwen3):
    configure(qwen3[1], weight_block_size=[128, 128])
    with pytest.raises(ModelFileError, match="_scale_inv' has shape"):
        load_model(qwen3[1])


@pytest.mark.parametrize("suffix", ["_scale", "_scale_inv"])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_one_scale_for_a_matrix(suffix, shape, tmp_path, seed, rng):
    """As AutoFP8 and transformers write them, with scales of activations that nothing uses."""
    torch.manual_seed(seed)
    reference = make(tiny("qwen3"), seed)
    files = save_fp8(reference, tmp_path / "files", (1 << 20, 1 << 20))

    def rename(tensors):
        for name in [name for name in tensors if name.endswith("_scale_inv")]:
            tensors[name.removesuffix("_scale_inv") + suffix] = tensors.pop(name).reshape(shape)
            tensors[name.replace("weight_scale_inv", "input_scale")] = torch.ones(())

    change(files, rename)
    configure(files, weight_block_size=None, activation_scheme="static")
    check(files, reference, rng, length=20)
    model = load_model(files)
    assert {format for block in model.blocks for format in block.mlp.down.weight.packed_NK.formats} == {
        "f8_d32"
    }
    assert model.spec.stored == "fp8"
    packed = resolve(str(pack_model(files, tmp_path / "packed", "float32")))
    check(packed, reference, rng, length=20)


def test_what_does_not_stay_in_eight_bits_is_said(tmp_path, seed):
    torch.manual_seed(seed)
    files = save_fp8(make(tiny("deepseek_v3"), seed), tmp_path)
    names = [name for name in load_file(files.paths[0]) if name.endswith("_scale_inv")]
    said = load_model(files).spec.stored
    assert said.startswith("fp8; held as bfloat16: ")
    assert f" of {len(names)} matrices in FP8, first 'model.layers." in said
    assert load_model(files, quantization="int8").spec.stored.count("kv_b_proj") == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"fmt": "e5m2"}, "fmt 'e4m3', not 'e5m2'"),
        ({"activation_scheme": "static"}, "activation_scheme 'dynamic', not 'static'"),
        ({"activation_scheme": "odd", "weight_block_size": None}, "'dynamic' or 'static', not 'odd'"),
        *(
            ({"weight_block_size": block}, "weight_block_size .* multiples of 16 and 32, not")
            for block in ([], [128], [100, 128], [128, 16], [0, 0], [16.0, 32], ["a", 32], {"a": 1})
        ),
    ],
)
def test_settings_that_are_not_read(settings, says, qwen3):
    configure(qwen3[1], **settings)
    with pytest.raises(UnsupportedModel, match=says):
        load_model(qwen3[1])


def test_tensors_in_e5m2_are_named(qwen3):
    _, files = qwen3
    change(files, lambda t: t.update({DOWN: t[DOWN].float().to(torch.float8_e5m2)}))
    with pytest.raises(UnsupportedModel, match=f"'{DOWN}' has type f8_e5m2"):
        load_model(files)


def test_fp8_without_a_configuration_is_refused(qwen3):
    edit_json(qwen3[1].directory / "config.json", {"quantization_config": None})
    with pytest.raises(UnsupportedModel, match="quantization_config of quant_method"):
        load_model(qwen3[1])
