"""Layouts of experts, what is left alone beside them, and what quantisation leaves alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tenon.errors import ModelFileError
from tenon.models import load_model
from tests.models.families import make, save_safetensors, tiny
from tests.models.test_parity import check

WEIGHTS = "model.safetensors"


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


def fuse(directory, prefix="model.layers.{i}.mlp.experts"):
    """Stack the experts' tensors of each layer, as transformers holds them."""
    tensors = load_file(directory / WEIGHTS)
    for i in range(2):
        below = prefix.format(i=i)

        def stacked(name, below=below):
            return torch.stack([tensors.pop(f"{below}.{e}.{name}.weight") for e in range(4)])

        tensors[f"{below}.gate_up_proj"] = torch.cat([stacked("gate_proj"), stacked("up_proj")], 1)
        tensors[f"{below}.down_proj"] = stacked("down_proj")
    save_file(tensors, directory / WEIGHTS)


def test_fused_tensors_are_the_same_model(tmp_path, seed, rng):
    reference = make(tiny("qwen3_moe"), seed)
    files = save_safetensors(reference, tmp_path)
    fuse(tmp_path)
    check(files, reference, rng, length=40)


def test_misshaped_fused_tensors_are_named(tmp_path, seed):
    files = save_safetensors(make(tiny("qwen3_moe"), seed), tmp_path)
    fuse(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    name = "model.layers.1.mlp.experts.gate_up_proj"
    save_file({**tensors, name: tensors[name][:3].contiguous()}, tmp_path / WEIGHTS)
    with pytest.raises(ModelFileError, match=rf"'{name}' has shape 3x128x64; .* says 4x128x64"):
        load_model(files)
    del tensors["model.layers.0.mlp.experts.down_proj"]
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(ModelFileError, match=r"layers\.0\.mlp\.experts\.0\.down_proj\.weight' is missing"):
        load_model(files)


def test_matrices_of_experts_that_do_nothing_are_left_alone(tmp_path, seed, rng):
    """transformers writes gate and up of them too."""
    reference = make(tiny("longcat_flash"), seed)
    files = save_safetensors(reference, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    extra = {f"model.layers.1.mlp.experts.{e}.up_proj.weight": torch.zeros(64, 64) for e in (6, 8)}
    save_file(tensors | extra, tmp_path / WEIGHTS)
    check(files, reference, rng, length=20)
    save_file(tensors | {"model.layers.1.mlp.experts.9.up_proj.weight": torch.zeros(4)}, tmp_path / WEIGHTS)
    with pytest.raises(ModelFileError, match=r"unexpected tensors: 'model\.layers\.1\.mlp\.experts\.9"):
        load_model(files)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_routers_stay_floats(kind, tmp_path, seed):
    files = save_safetensors(make(tiny("qwen2_moe"), seed), tmp_path)
    mlp = load_model(files, quantization=kind).blocks[0].mlp
    code = {"int8": "s8_d16", "int4": "u4_dm16"}[kind]
    assert set(mlp.experts.gate_up.formats) == set(mlp.experts.down.formats) == {code}
    assert mlp.router.logits.weight.packed_NK.formats == mlp.shared_gate.weight.packed_NK.formats == ["bf16"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_experts_per_tok": 5}, "num_experts_per_tok does not fit: top_k must be 1 to 4"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok must be a whole number"),
        ({"num_local_experts": 5}, r"mlp\.gate\.weight' has shape 4x64"),
        ({"num_local_experts": None}, "num_experts is missing"),
        ({"moe_intermediate_size": "x"}, "moe_intermediate_size must be a whole number"),
        ({"norm_topk_prob": 1}, "norm_topk_prob must be true or false"),
        ({"mlp_only_layers": 3}, "mlp_only_layers must list layers"),
        ({"decoder_sparse_step": 0}, "decoder_sparse_step must be"),
    ],
)
def test_wrong_configurations_are_named(changes, says, tmp_path, seed):
    _check_refused("qwen3_moe", changes, says, tmp_path, seed)


def test_a_wrong_range_of_layers_is_named(tmp_path, seed):
    says = "moe_layer_end_index must be a whole number"
    _check_refused("ernie4_5_moe", {"moe_layer_end_index": "x"}, says, tmp_path, seed)


def _check_refused(family, changes, says, tmp_path, seed):
    files = save_safetensors(make(tiny(family), seed), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelFileError, match=says):
        load_model(files)
