"""Configurations and files of families with recurrent layers."""

from __future__ import annotations

import json

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tenon import ops
from tenon.errors import ModelFileError, UnsupportedModel
from tenon.models import _load, load_model
from tests.models import families
from tests.models.families import make, save_gguf, save_safetensors, tiny
from tests.models.test_parity import check

WEIGHTS = "model.safetensors"


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("family", "changes", "error", "says"),
    [
        ("qwen3_next", {"layer_types": ["linear_attention"] * 4}, UnsupportedModel, "without attention"),
        ("qwen3_next", {"layer_types": ["full_attention"] * 3}, UnsupportedModel, "for each of 4 layers"),
        ("qwen3_next", {"linear_num_value_heads": 3}, ModelFileError, "3 value heads cannot share 2"),
        ("qwen3_next", {"linear_conv_kernel_dim": 1}, ModelFileError, "one tap"),
        ("qwen3_next", {"linear_num_value_heads": 10**8}, ModelFileError, "too many"),
        ("qwen3_next", {"linear_key_head_dim": 16}, ModelFileError, r"in_proj_qkvz\.weight' has shape"),
        ("granitemoehybrid", {"layer_types": ["mamba"] * 4}, UnsupportedModel, "without attention"),
        ("granitemoehybrid", {"layer_types": None}, UnsupportedModel, "layer_types must name one of mamba"),
        ("granitemoehybrid", {"mamba_n_heads": 3}, ModelFileError, "3 heads, 2 groups, 4 taps do not fit"),
        ("granitemoehybrid", {"mamba_d_head": 31}, ModelFileError, "mamba_d_head must be 32"),
        ("granitemoehybrid", {"mamba_d_state": 10**9}, ModelFileError, "too many"),
        ("granitemoehybrid", {"time_step_limit": [1.0]}, ModelFileError, "must be two numbers"),
        ("granitemoehybrid", {"time_step_limit": [2.0, 1.0]}, ModelFileError, "must be two numbers"),
        ("granite", {"residual_multiplier": 0.0}, ModelFileError, "residual_multiplier must be"),
    ],
)
def test_wrong_configurations_are_named(family, changes, error, says, tmp_path, seed):
    files = save_safetensors(make(tiny(family), seed), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(error, match=says):
        load_model(files)


def test_published_names_of_layer_types(tmp_path, seed, rng):
    """transformers writes others than publishers do."""
    reference = make(tiny("granitemoehybrid"), seed)
    files = save_safetensors(reference, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"layer_types": tiny("granitemoehybrid")["layer_types"]})
    )
    check(files, reference, rng, length=20)


def test_a_quarter_of_each_head_turns_if_nothing_is_said(tmp_path, seed, rng):
    reference = make(tiny("qwen3_next"), seed)
    files = save_safetensors(reference, tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config.pop("partial_rotary_factor", None)
    config["rope_parameters"].pop("partial_rotary_factor")
    path.write_text(json.dumps(config))
    check(files, reference, rng, length=20)


def test_gguf_with_one_projection(tmp_path, seed, rng, monkeypatch):
    """Older files have q, k, v and z as published."""
    converted = families._converted
    monkeypatch.setattr(
        families, "_converted", lambda c, n, t: [(n, t)] if "in_proj_qkvz" in n else converted(c, n, t)
    )
    reference = make(tiny("qwen3_next"), seed)
    files = save_gguf(reference, tmp_path / "m.gguf")
    assert any("ssm_in" in t.name for t in gguf.GGUFReader(files.paths[0]).tensors)
    check(files, reference, rng, length=20)


def with_mtp(tensors):
    """The last layer, which has attention, once more: as one that predicts a token more."""
    own = {name: t for name, t in tensors.items() if name.startswith("model.layers.3.")}
    extra = {name.replace("model.layers.3", "mtp.layers.0"): t.clone() for name, t in own.items()}
    norms = {
        f"mtp.{name}.weight": torch.ones(64)
        for name in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden")
    }
    return tensors | extra | norms | {"mtp.fc.weight": torch.ones(64, 128)}


def test_the_layer_that_predicts_a_token_more_is_kept(tmp_path, seed, rng):
    reference = make(tiny("qwen3_next"), seed)
    files = save_safetensors(reference, tmp_path)
    assert not load_model(files, "float32").mtp
    tensors = with_mtp(load_file(tmp_path / WEIGHTS))
    save_file(tensors, tmp_path / WEIGHTS)
    check(files, reference, rng, length=20)
    model = load_model(files, "float32")
    (layer,), last = model.mtp, model.blocks[3]
    assert np.array_equal(layer.norm.weight_D, np.full(64, 2, np.float32))
    kept, own = (block.attention.qkv.weight.packed_NK for block in (layer.block, last))
    assert np.array_equal(ops.packed_bytes(kept), ops.packed_bytes(own))
    del tensors["mtp.layers.0.self_attn.o_proj.weight"]
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(ModelFileError, match=r"'mtp\.layers\.0\.self_attn\.o_proj\.weight' is missing"):
        load_model(files)


@pytest.mark.parametrize("counts", [[0, 0, 0, 0], [2, 0, 0, 1], [2, 2], [2, 0, 0, 9], [2, 0, 0, "x"]])
def test_wrong_heads_in_gguf_are_named(counts, tmp_path, seed):
    path = tmp_path / "m.gguf"
    files = save_gguf(make(tiny("granitemoehybrid"), seed), path)
    opened = _load.open_checkpoint(files)
    values = {key: opened.fields.values[key] for key in opened.fields.values}
    values["granitehybrid.attention.head_count_kv"] = counts
    opened.fields.values = values
    with pytest.raises(ModelFileError, match=r"attention\.head_count_kv must be one number"):
        _load.read_family(opened)
