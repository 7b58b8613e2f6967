"""Checkpoints in PaddlePaddle's layout are the models that they are, and refused by the names they have."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tenon.core.files import ModelFiles
from tenon.errors import ModelFileError
from tenon.models import load_model, pack_model
from tenon.resolve import resolve
from tests.models.driver import Driver
from tests.models.families import make, save_safetensors, tiny

FUSED = {"q_proj": "qkv_proj", "gate_proj": "up_gate_proj"}  # the first of those that become one
OTHERS = {"q_proj": ["k_proj", "v_proj"], "gate_proj": ["up_proj"]}


def paddle_tensors(tensors):
    """The tensors of a usual checkpoint, as Paddle would write them."""
    written = {}
    for name, tensor in tensors.items():
        stem, _, last = name.removesuffix(".weight").rpartition(".")
        if any(last in others for others in OTHERS.values()):
            continue
        parts = [tensor, *(tensors[f"{stem}.{other}.weight"] for other in OTHERS.get(last, ()))]
        if last in FUSED:
            name = f"{stem}.{FUSED[last]}.weight"
        whole = torch.cat(parts)
        if whole.dim() == 2 and name.endswith(".weight") and "embed_tokens" not in name:
            whole = whole.T.contiguous()
        written[name.replace("model.", "ernie.", 1)] = whole
    return written


@pytest.fixture(params=["ernie4_5", "ernie4_5_moe"])
def both(request, tmp_path, seed):
    """The same model in both layouts."""
    config = {**tiny(request.param), "tie_word_embeddings": request.param == "ernie4_5"}
    usual = save_safetensors(make(config, seed).to(torch.bfloat16), tmp_path / "usual")
    directory = tmp_path / "paddle"
    directory.mkdir()
    tensors = load_file(tmp_path / "usual" / "model.safetensors")
    save_file(paddle_tensors(tensors), directory / "model.safetensors")
    (directory / "config.json").write_text((tmp_path / "usual" / "config.json").read_text())
    return usual, ModelFiles("hf", (directory / "model.safetensors",), "tiny", directory)


def logits(model, seed):
    driver = Driver(model, np.random.default_rng(seed), num_sequences=1, max_len=64)
    (got,) = driver.step([(0, np.random.default_rng(seed).integers(0, 160, 40).tolist())])
    return np.array(got)


def test_both_layouts_give_the_same_bits(both, tmp_path, seed):
    usual, paddle = both
    expected = logits(load_model(usual), seed)
    np.testing.assert_array_equal(logits(load_model(paddle), seed), expected)
    packed = resolve(str(pack_model(paddle, tmp_path / "packed")))
    np.testing.assert_array_equal(logits(load_model(packed), seed), expected)


def test_every_missing_or_misshaped_tensor_is_named_as_the_file_names_it(both):
    _, paddle = both
    path = paddle.paths[0]
    whole = load_file(path)
    for name in whole:
        save_file({k: v for k, v in whole.items() if k != name}, path)
        with pytest.raises(ModelFileError, match=f"'{name}' is missing"):
            load_model(paddle)
        wrong = torch.cat([whole[name], whole[name][..., :1]], dim=-1).contiguous()
        save_file({**whole, name: wrong}, path)
        with pytest.raises(ModelFileError, match=f"'{name}' (has shape|is missing)"):
            load_model(paddle)
    save_file({**whole, "ernie.layers.0.surprise.weight": torch.zeros(3)}, path)
    with pytest.raises(ModelFileError, match=r"unexpected tensors: 'ernie\.layers\.0\.surprise\.weight'"):
        load_model(paddle)


def test_heads_must_be_known(both):
    _, paddle = both
    config = paddle.directory / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"num_attention_heads": "many"}))
    with pytest.raises(ModelFileError, match="num_attention_heads must be a whole number"):
        load_model(paddle)
