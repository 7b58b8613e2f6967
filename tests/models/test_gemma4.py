"""What Gemma 4's published files have beside its text model, how GGUF has it, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file, save_file

from tenon.core.files import ModelFiles
from tenon.errors import ModelFileError, UnsupportedModel
from tenon.models import gemma4, load_model
from tests.models.driver import Driver
from tests.models.families import make, save_gguf, save_safetensors, tiny
from tests.models.test_parity import check


def logits(model, seed):
    driver = Driver(model, np.random.default_rng(seed), num_sequences=1, max_len=64)
    (got,) = driver.step([(0, np.random.default_rng(seed).integers(0, 160, 50).tolist())])
    return np.array(got)


def test_files_of_models_that_see_and_hear_too(tmp_path, seed):
    """Their text model is one level deeper, and layers that borrow K and V have weights for their own."""
    usual = save_safetensors(make(tiny("gemma4"), seed), tmp_path / "text")
    tensors = load_file(tmp_path / "text" / "model.safetensors")
    inside = {name.replace("model.", "model.language_model.", 1): t for name, t in tensors.items()}
    for name in ("k_proj.weight", "v_proj.weight", "k_norm.weight"):
        inside[f"model.language_model.layers.5.self_attn.{name}"] = torch.zeros(3)
    inside |= {"model.vision_tower.x.weight": torch.zeros(2), "model.embed_audio.y": torch.zeros(2)}
    directory = tmp_path / "all"
    directory.mkdir()
    save_file(inside, directory / "model.safetensors")
    text = json.loads((tmp_path / "text" / "config.json").read_text())
    config = {
        "architectures": ["Gemma4ForConditionalGeneration"],
        "model_type": "gemma4",
        "text_config": text,
        "vision_config": {"hidden_size": 7},
        "eos_token_id": [1, 106],
    }
    (directory / "config.json").write_text(json.dumps(config))
    whole = load_model(ModelFiles("hf", (directory / "model.safetensors",), "all", directory))
    assert whole.spec.eos_token_ids == (1, 106)
    np.testing.assert_array_equal(logits(whole, seed), logits(load_model(usual), seed))


def test_layers_that_borrow_take_no_memory(tmp_path, seed):
    model = load_model(save_safetensors(make(tiny("gemma4"), seed), tmp_path))
    kv = model.kv_caches(4, 32)
    groups = [(group.layers, group.window, group.parts) for group in model.spec.kv_groups]
    assert groups == [((1,), 0, 1), ((3,), 0, 1), ((0, 2), 40, 2)]
    assert model.groups == [2, 0, 2, 1, 2, 1]
    assert [kv.index(one) for one in kv] == [0, 1, 2, 1, 2, 1], "groups share memory"
    assert model.kv_bytes_per_block(32) * 4 == kv[1].nbytes


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"top_k_experts": 5}, ModelFileError, "top_k_experts does not fit"),
        ({"vocab_size_per_layer_input": 159}, ModelFileError, "must not be below 160 tokens"),
        ({"use_bidirectional_attention": "all"}, UnsupportedModel, "use_bidirectional_attention"),
        ({"hidden_activation": "silu"}, UnsupportedModel, "'silu'"),
        ({"rope_parameters": None}, ModelFileError, "rope_parameters is missing"),
        ({"layer_types": ["full_attention"] * 6}, UnsupportedModel, "without sliding windows"),
        ({"num_kv_shared_layers": 5}, ModelFileError, "leaves no layer"),
        ({"num_kv_shared_layers": 9}, ModelFileError, "leaves no layer"),
        ({"per_layer_config": {"1": {"num_key_value_heads": 3}}}, ModelFileError, "cannot share 3"),
        ({"per_layer_config": {"1": {"head_dim": "wide"}}}, ModelFileError, "head_dim must be"),
    ],
)
def test_refusals(changes, error, says, tmp_path, seed):
    files = save_safetensors(make(tiny("gemma4"), seed), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(error, match=says):
        load_model(files)


def test_gguf_with_gate_and_up_apart(tmp_path, seed, monkeypatch):
    """As files of some converters have them."""
    reference = make(tiny("gemma4"), seed)
    with monkeypatch.context() as writing:
        writing.delitem(gemma4.WEIGHTS, "model.layers.{i}.experts.gate_up_proj")
        files = save_gguf(reference, tmp_path / "m.gguf")
    check(files, reference, np.random.default_rng(seed), length=20)


def test_gguf_with_few_bits(tmp_path, seed):
    types = {"per_layer_token_embd": Type.Q8_0, "gate_up_exps": Type.Q4_0, "down_exps": Type.Q4_1}

    def pick(name):
        return next((kind for part, kind in types.items() if part in name), Type.F32)

    reference = make(tiny("gemma4"), seed)
    files = save_gguf(reference, tmp_path / "m.gguf", pick)
    check(files, reference, np.random.default_rng(seed), length=20)


def test_gguf_with_one_number_for_all_layers(tmp_path, seed):
    """Of the width of feed-forward networks, as in files of models without wider ones, and of kv heads."""
    changes = {"use_double_wide_mlp": False, "num_key_value_heads": 1}
    reference = make({**tiny("gemma4"), **changes}, seed)
    metadata = {"attention__head_count_kv": 1, "feed_forward_length": 96}
    files = save_gguf(reference, tmp_path / "m.gguf", **metadata)
    check(files, reference, np.random.default_rng(seed), length=20)


@pytest.mark.parametrize(
    ("extra", "error", "says"),
    [
        ({"attention__sliding_window_pattern": 2}, ModelFileError, "sliding_window_pattern must be true or"),
        ({"attention__sliding_window_pattern": [True]}, ModelFileError, "true or false for 6 layers"),
        (
            {"attention__sliding_window_pattern": [False] * 6, "attention__head_count_kv": 1},
            UnsupportedModel,
            "without sliding windows",
        ),
        ({"attention__value_length_swa": 8}, UnsupportedModel, "differ in width"),
        ({"rope__dimension_count_swa": 18}, ModelFileError, "rope.dimension_count_swa cannot be 18 of 16"),
        ({"rope__freq_base_swa": 0.5}, ModelFileError, "rope.freq_base_swa must be"),
        ({"attention__head_count_kv": [2, 1, 2]}, ModelFileError, "or one for each of 6 layers"),
        ({"attention__head_count_kv": [2, 1, 1, 1, 2, 1]}, ModelFileError, "the same in all layers of a"),
        ({"attention__head_count_kv": [2, 3, 2, 3, 2, 3]}, ModelFileError, "cannot share 3"),
        ({"attention__head_count_kv": [2, 0, 2, 0, 2, 0]}, ModelFileError, "head_count_kv must be"),
        ({"feed_forward_length": [96] * 4 + [97] * 2}, ModelFileError, "must be 96 or twice that"),
        ({"attention__shared_kv_layers": 5, "feed_forward_length": 96}, ModelFileError, "leaves no layer"),
        ({"expert_used_count": 5}, ModelFileError, "expert_used_count does not fit"),
    ],
)
def test_gguf_refusals(extra, error, says, tmp_path, seed):
    files = save_gguf(make(tiny("gemma4"), seed), tmp_path / "m.gguf", **extra)
    with pytest.raises(error, match=says):
        load_model(files)
