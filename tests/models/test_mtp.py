"""Layers that predict a token more: read from either format, kept, and without influence on the others."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tenon.errors import ModelFileError
from tenon.models import load_model
from tests.models.families import make, save_gguf, save_safetensors, tiny
from tests.models.test_parity import check

FAMILIES = ["deepseek_v3", "glm4_moe"]
WIDTH = 64
OWN = {
    "eh_proj.weight": (WIDTH, 2 * WIDTH),
    "enorm.weight": (WIDTH,),
    "hnorm.weight": (WIDTH,),
    "shared_head.norm.weight": (WIDTH,),
}
REPEATED = {"embed_tokens.weight": (160, WIDTH), "shared_head.head.weight": (160, WIDTH)}


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


def add_layer(directory, rng):
    """A third layer, whose inner one is a copy of the second."""
    path = directory / "model.safetensors"
    tensors = load_file(path)
    third = {
        name.replace("layers.1.", "layers.2."): tensor.clone()
        for name, tensor in tensors.items()
        if ".layers.1." in name
    }
    for name, shape in {**OWN, **REPEATED}.items():
        values = rng.standard_normal(shape).astype(np.float32)
        third[f"model.layers.2.{name}"] = torch.from_numpy(values)
    save_file(tensors | third, path)
    return third


@pytest.mark.parametrize("family", FAMILIES)
def test_they_are_loaded_and_kept(family, tmp_path, seed, rng):
    reference = make(tiny(family), seed)
    files = save_safetensors(reference, tmp_path)
    assert load_model(files).mtp == []
    third = add_layer(tmp_path, rng)
    check(files, reference, rng, length=20)
    (layer,) = load_model(files, "float32").mtp
    assert layer.join.weight.packed_NK.shape == (WIDTH, 2 * WIDTH)
    np.testing.assert_array_equal(layer.hidden_norm.weight_D, third["model.layers.2.hnorm.weight"])
    assert layer.block.mlp.experts.num_experts == tiny(family)["n_routed_experts"]


@pytest.mark.parametrize("family", FAMILIES)
def test_tensors_of_theirs_are_checked_by_name(family, tmp_path, seed, rng):
    files = save_safetensors(make(tiny(family), seed), tmp_path)
    add_layer(tmp_path, rng)
    path = tmp_path / "model.safetensors"
    whole = load_file(path)
    for name in ("enorm.weight", "shared_head.norm.weight", "mlp.experts.1.up_proj.weight"):
        save_file({k: v for k, v in whole.items() if k != f"model.layers.2.{name}"}, path)
        with pytest.raises(ModelFileError, match=rf"'model\.layers\.2\.{name}' is missing"):
            load_model(files)
    save_file(whole | {"model.layers.2.more.weight": torch.zeros(3)}, path)
    with pytest.raises(ModelFileError, match=r"unexpected tensors: 'model\.layers\.2\.more"):
        load_model(files)
    save_file({k: v for k, v in whole.items() if "eh_proj" not in k}, path)
    with pytest.raises(ModelFileError, match=r"unexpected tensors: 'model\.layers\.2\."):
        load_model(files)


def test_those_of_gguf_files_are_kept(tmp_path, seed, rng):
    """Whose number of layers counts them."""
    config = tiny("glm4_moe")
    reference = make({**config, "num_hidden_layers": 3}, seed)
    names = {name: name for name in ("eh_proj", "enorm", "hnorm")} | {"shared_head.norm": "shared_head_norm"}
    own = {
        f"_blk.2.nextn.{names[name.removesuffix('.weight')]}": rng.standard_normal(shape).astype(np.float32)
        for name, shape in OWN.items()
    }
    files = save_gguf(reference, tmp_path / "m.gguf", nextn_predict_layers=1, **own)
    model = load_model(files, "float32")
    assert (len(model.blocks), len(model.mtp)) == (2, 1)
    reference.model.layers = reference.model.layers[:2]
    check(files, reference, rng, length=20)


def check_each_is_named(files, whole, own, join):
    """Missing or misshaped. Without the matrix that joins, nothing says that there is such a layer."""
    (path,) = files.paths
    for name in own:
        save_file({k: v for k, v in whole.items() if k != name}, path)
        what = "unexpected tensors" if join in name else f"'{name}' is missing"
        with pytest.raises(ModelFileError, match=what):
            load_model(files)
        save_file(whole | {name: torch.zeros(3, 3)}, path)
        with pytest.raises(ModelFileError, match=f"'{name}' has shape"):
            load_model(files)


def ernies_own():
    """The tensors of ERNIE's layer, which is dense."""
    block = {
        "self_attn.q_proj": (64, 64),
        "self_attn.k_proj": (32, 64),
        "self_attn.v_proj": (32, 64),
        "self_attn.o_proj": (64, 64),
        "mlp.gate_proj": (96, 64),
        "mlp.up_proj": (96, 64),
        "mlp.down_proj": (64, 96),
        "input_layernorm": (64,),
        "post_attention_layernorm": (64,),
    }
    return {f"model.mtp_block.0.{name}.weight": shape for name, shape in block.items()} | {
        "model.mtp_emb_norm.0.weight": (64,),
        "model.mtp_hidden_norm.0.weight": (64,),
        "model.mtp_linear_proj.0.weight": (64, 128),
    }


def test_that_of_ernie(tmp_path, seed, rng):
    """It lies beside the layers; rows of q and k are in the order of the others."""
    reference = make(tiny("ernie4_5_moe"), seed)
    files = save_safetensors(reference, tmp_path)
    assert load_model(files).mtp == []
    path = tmp_path / "model.safetensors"
    whole = load_file(path)
    whole |= {name: torch.from_numpy(rng.standard_normal(s).astype("f4")) for name, s in ernies_own().items()}
    for name in ("q_proj", "k_proj", "v_proj"):  # as of a layer whose rotation has been seen to be right
        whole[f"model.mtp_block.0.self_attn.{name}.weight"] = whole[
            f"model.layers.1.self_attn.{name}.weight"
        ].clone()
    save_file(whole, path)
    check(files, reference, rng, length=20)
    model = load_model(files, "float32")
    (layer,) = model.mtp
    x = rng.standard_normal((3, 64)).astype(np.float32)
    np.testing.assert_array_equal(layer.block.attention.qkv(x), model.blocks[1].attention.qkv(x))
    check_each_is_named(files, whole, ernies_own(), join="linear_proj")


def longcats_own():
    """The tensors of LongCat's layer, which is dense and has one attention, but those of it."""
    block = {
        "transformer_layer.mlp.gate_proj": (96, 64),
        "transformer_layer.mlp.up_proj": (96, 64),
        "transformer_layer.mlp.down_proj": (64, 96),
        "input_layernorm": (64,),
        "post_attention_layernorm": (64,),
        "enorm.m": (64,),
        "hnorm.m": (64,),
        "eh_proj": (64, 128),
    }
    return {f"model.mtp.layers.0.{name}.weight": shape for name, shape in block.items()} | {
        "model.mtp.norm.weight": (64,)
    }


def test_that_of_longcat(tmp_path, seed, rng):
    reference = make(tiny("longcat_flash"), seed)
    files = save_safetensors(reference, tmp_path)
    assert load_model(files).mtp == []
    path = tmp_path / "model.safetensors"
    whole = load_file(path)
    own = {name: torch.from_numpy(rng.standard_normal(s).astype("f4")) for name, s in longcats_own().items()}
    attention = "model.layers.1.self_attn.0."  # whose rotation has been seen to be right
    own |= {
        name.replace(attention, "model.mtp.layers.0.self_attn."): tensor.clone()
        for name, tensor in whole.items()
        if name.startswith(attention)
    }
    whole |= own
    save_file(whole | {"model.mtp.embed_tokens.weight": torch.zeros(160, 64)}, path)
    check(files, reference, rng, length=20)
    model = load_model(files, "float32")
    (layer,) = model.mtp
    x = rng.standard_normal((3, 64)).astype(np.float32)
    np.testing.assert_array_equal(layer.block.attention.kv(x), model.blocks[1].attentions[0].kv(x))
    np.testing.assert_array_equal(layer.norm.weight_D, own["model.mtp.norm.weight"])
    check_each_is_named(files, whole, own, join="eh_proj")


def test_a_packed_model_has_them_too(tmp_path, seed, rng):
    from tenon.models import pack_model
    from tenon.resolve import resolve

    files = save_safetensors(make(tiny("deepseek_v3"), seed), tmp_path / "source")
    add_layer(tmp_path / "source", rng)
    pack_model(files, tmp_path / "packed")
    assert len(load_model(resolve(str(tmp_path / "packed"))).mtp) == 1
    assert json.loads((tmp_path / "packed" / "config.json").read_text())["num_hidden_layers"] == 2
