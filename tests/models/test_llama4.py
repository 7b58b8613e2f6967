"""Llama 4 as it is published: the text model beside a vision model, in one checkpoint."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tenon.config import EngineArgs
from tenon.engine.loader import load_engine
from tenon.errors import ModelFileError, UnsupportedModel
from tenon.models import load_model
from tests.models.families import make, save_safetensors, tiny
from tests.models.test_parity import check

WEIGHTS = "model.safetensors"
ORIGINAL = 64
SCOUT_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 16.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 1.0,
    "original_max_position_embeddings": ORIGINAL,
}


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


def with_vision(config, directory, seed):
    """The model, and the files of a checkpoint that has images."""
    reference = make(config, seed)
    files = save_safetensors(reference, directory)
    tensors = {f"language_model.{k}": v for k, v in load_file(directory / WEIGHTS).items()}
    tensors["vision_model.patch_embedding.linear.weight"] = torch.zeros(4, 4)
    tensors["multi_modal_projector.linear_1.weight"] = torch.zeros(4, 4)
    save_file(tensors, directory / WEIGHTS)
    path = directory / "config.json"
    text = json.loads(path.read_text()) | {"attn_temperature_tuning": 4, "no_rope_layers": []}
    text.pop("layer_types")
    whole = {
        "architectures": ["Llama4ForConditionalGeneration"],
        "model_type": "llama4",
        "text_config": text,
        "vision_config": {"model_type": "llama4_vision_model", "hidden_size": 4},
    }
    path.write_text(json.dumps(whole))
    return reference, files


def test_the_text_model_of_a_checkpoint_with_images(tmp_path, seed, rng, caplog):
    config = {**tiny("llama4"), "num_hidden_layers": 3, "rope_parameters": SCOUT_ROPE}
    reference, files = with_vision(config, tmp_path, seed)
    with caplog.at_level(logging.WARNING, "tenon.models.llama4"):
        check(files, reference, rng, length=3 * ORIGINAL)
    assert "images are not supported" in caplog.text


def test_its_tensors_are_named_as_in_the_file(tmp_path, seed):
    _, files = with_vision(tiny("llama4"), tmp_path, seed)
    tensors = load_file(tmp_path / WEIGHTS)
    name = "language_model.model.layers.1.feed_forward.experts.gate_up_proj"
    save_file({**tensors, name: tensors[name][:, :, 1:].contiguous()}, tmp_path / WEIGHTS)
    with pytest.raises(ModelFileError, match=rf"'{name}' has shape 4x64x127; .* says 4x64x128"):
        load_model(files)
    save_file({**tensors, "language_model.model.extra": torch.zeros(3)}, tmp_path / WEIGHTS)
    with pytest.raises(ModelFileError, match=r"unexpected tensors: 'language_model\.model\.extra'"):
        load_model(files)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"layer_types": ["full_attention", "sliding_attention"]}, ModelFileError, "layer_types must name"),
        ({"layer_types": ["full_attention"]}, ModelFileError, "for each of 2 layers"),
        ({"moe_layers": "all"}, ModelFileError, "moe_layers must list layers"),
        ({"no_rope_layers": [1]}, ModelFileError, "no_rope_layers must be 0 or 1"),
        ({"attn_temperature_tuning": "yes"}, ModelFileError, "attn_temperature_tuning"),
        ({"attention_chunk_size": 0}, ModelFileError, "attention_chunk_size"),
        ({"floor_scale": 0}, ModelFileError, "floor_scale"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, UnsupportedModel, "yarn"),
    ],
)
def test_wrong_configurations_are_named(changes, error, says, tmp_path, seed):
    files = save_safetensors(make(tiny("llama4"), seed), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(error, match=says):
        load_model(files)


def test_tables_of_positions_are_as_long_as_what_the_cache_holds(tmp_path, seed):
    """Scout's ten million positions would take gigabytes."""
    files = save_safetensors(make({**tiny("llama4"), "max_position_embeddings": 10_000_000}, seed), tmp_path)
    engine = load_engine(EngineArgs(model=str(files.path), kv_cache_memory="4MiB").resolve())
    longest = engine.ready.max_model_len
    assert longest < 100_000
    model = engine.runner.model
    assert len(model.ropes[0].cos_sin_PE) == len(model.ropes[1].q_scale_P) == longest
