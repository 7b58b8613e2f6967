"""GPT-OSS as it is published: experts in MXFP4, codes and exponents in tensors of their own."""

from __future__ import annotations

import json

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file, save_file

from tenon import ops
from tenon.errors import ModelFileError, UnsupportedModel
from tenon.formats.packed import FILE_NAME
from tenon.models import load_model, pack_model
from tenon.resolve import resolve
from tests.core.test_ggml import pairs_of
from tests.models.families import make, save_gguf, save_safetensors, tiny
from tests.models.test_parity import check

WEIGHTS = "model.safetensors"
LAYERS = tiny("gpt_oss")["num_hidden_layers"]


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


@pytest.fixture
def published(tmp_path, seed):
    """The reference model, whose experts MXFP4 holds exactly, and its files."""
    reference = make(tiny("gpt_oss"), seed)
    tensors = {}
    for i, layer in enumerate(reference.model.layers):
        for name in ("gate_up_proj", "down_proj"):
            parameter = getattr(layer.mlp.experts, name)
            rows = np.ascontiguousarray(parameter.detach().numpy().swapaxes(1, 2))
            blocks = gguf.quants.quantize(rows, Type.MXFP4)
            values = gguf.quants.dequantize(blocks, Type.MXFP4).reshape(rows.shape)
            parameter.data.copy_(torch.from_numpy(values.swapaxes(1, 2).copy()))
            shape = (*rows.shape[:2], rows.shape[2] // 32)
            codes, exponents = pairs_of(blocks)
            below = f"model.layers.{i}.mlp.experts.{name}"
            tensors[f"{below}_blocks"] = torch.from_numpy(codes.reshape(*shape, 16))
            tensors[f"{below}_scales"] = torch.from_numpy(exponents.reshape(shape))
    files = save_safetensors(reference, tmp_path)
    change(
        tmp_path, lambda t: [t.pop(name.rpartition("_")[0], None) for name in tensors] and t.update(tensors)
    )
    path = tmp_path / "config.json"
    quantization = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": quantization}))
    return reference, files


def change(directory, edit):
    tensors = load_file(directory / WEIGHTS)
    edit(tensors)
    save_file(tensors, directory / WEIGHTS)


def test_it_matches_transformers(published, rng):
    reference, files = published
    check(files, reference, rng)


def test_experts_stay_in_four_bits(published):
    _, files = published
    for act_bits, activations in ((0, "bfloat16"), (8, "int8"), (16, "int16")):
        experts = load_model(files, activations=activations).blocks[0].mlp.experts
        assert set(experts.gate_up.formats) == set(experts.down.formats) == {"f4_e8"}
        assert experts.gate_up.act_bits == act_bits
        weights = 3 * 4 * 64 * 64  # gate, up and down of four experts
        assert experts.gate_up.nbytes + experts.down.nbytes == weights * 17 // 32


def test_gguf_files_have_the_same_bytes(published, tmp_path):
    reference, files = published
    other = save_gguf(reference, tmp_path / "m.gguf", lambda n: Type.MXFP4 if "_exps" in n else Type.F32)
    for ours, theirs in zip(load_model(files).blocks, load_model(other).blocks, strict=True):
        for name in ("gate_up", "down"):
            one, two = (ops.packed_bytes(getattr(block.mlp.experts, name)) for block in (ours, theirs))
            np.testing.assert_array_equal(one, two)


def test_packed_models(published, tmp_path, rng):
    reference, files = published
    packed = resolve(str(pack_model(files, tmp_path / "packed", "float32")))
    assert (tmp_path / "packed" / FILE_NAME).is_file()
    check(packed, reference, rng, length=40)


@pytest.mark.parametrize("name", ["gate_up_proj", "down_proj"])
@pytest.mark.parametrize("part", ["blocks", "scales"])
def test_missing_and_misshaped_tensors_are_named(name, part, published):
    _, files = published
    full = f"model.layers.1.mlp.experts.{name}_{part}"
    change(files.directory, lambda t: t.update({full: t[full][:, 1:].contiguous()}))
    with pytest.raises(ModelFileError, match=f"'{full}' has shape 4x"):
        load_model(files)
    change(files.directory, lambda t: t.update({full: t[full].float()}))
    with pytest.raises((ModelFileError, UnsupportedModel), match=f"'{full}'"):
        load_model(files)
    change(files.directory, lambda t: t.pop(full))
    with pytest.raises(ModelFileError, match=f"'{full}' is missing"):
        load_model(files)


def test_tensors_of_another_type_are_named(published):
    _, files = published
    full = "model.layers.0.mlp.experts.down_proj_scales"
    change(files.directory, lambda t: t.update({full: t[full].float()}))
    with pytest.raises(UnsupportedModel, match=f"'{full}' has type f32, not u8"):
        load_model(files)


def test_rows_that_are_no_whole_groups(published):
    _, files = published
    path = files.directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 80}))
    with pytest.raises(ModelFileError, match=r"rows of 80 numbers|has shape"):
        load_model(files)
