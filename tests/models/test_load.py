"""What `load_model` says about checkpoints that are not what they should be."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file, save_file

from tenon.core.spec import KVGroup
from tenon.errors import ConfigError, ModelFileError, UnsupportedModel
from tenon.models import _load, load_model
from tests.models.families import KINDS, make, save_gguf, save_safetensors, tiny

WEIGHTS = "model.safetensors"
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}


@pytest.fixture
def checkpoint(tmp_path, seed):
    """A tiny llama as safetensors, and functions that spoil it."""
    files = save_safetensors(make(tiny("llama"), seed), tmp_path)
    (tmp_path / "generation_config.json").unlink()
    return Checkpoint(files, tmp_path)


class Checkpoint:
    def __init__(self, files, directory):
        self.files = files
        self.directory = directory

    def load(self, *args, **options):
        return load_model(self.files, *args, **options)

    def tensors(self, change):
        tensors = load_file(self.directory / WEIGHTS)
        change(tensors)
        save_file(tensors, self.directory / WEIGHTS)

    def config(self, **changes):
        path = self.directory / "config.json"
        config = json.loads(path.read_text()) | changes
        path.write_text(json.dumps(config))


def test_the_spec_says_what_the_engine_must_know(checkpoint):
    checkpoint.config(eos_token_id=7)
    (checkpoint.directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 9]}))
    spec = checkpoint.load().spec
    assert (spec.model_type, spec.vocab_size, spec.max_position) == ("llama", 160, 512)
    assert spec.kv_groups == (KVGroup("full", 2, 2, 16),)
    assert (spec.eos_token_ids, spec.dtype) == ((5, 9), "bfloat16")
    (checkpoint.directory / "generation_config.json").write_text("{}")
    assert checkpoint.load("float32").spec.eos_token_ids == (7,)


def test_progress_counts_every_byte(checkpoint):
    seen = []
    checkpoint.load(progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 0


@pytest.mark.parametrize(("kind", "family"), KINDS)
def test_every_missing_or_misshaped_tensor_is_named(family, kind, tmp_path, seed, monkeypatch):
    """By the name that the file gives it."""
    config = tiny(family)
    dense = config.get("first_k_dense_replace", config.get("moe_layer_start_index", 0))
    layers = config.get("full_attention_interval", dense + 1)  # one of each kind
    if "layer_types" not in config:
        config[next(name for name in ("num_layers", "num_hidden_layers") if name in config)] = layers
    reference = make(config, seed)
    gguf_file = kind == "gguf"
    files = save_gguf(reference, tmp_path / "m.gguf") if gguf_file else save_safetensors(reference, tmp_path)
    opened = _load.open_checkpoint(files)
    whole = dict(opened.file.tensors)
    monkeypatch.setattr(_load, "open_checkpoint", lambda _: opened)
    for name, info in whole.items():
        if name != "output.weight":  # a GGUF file without it has a tied head
            opened.file.tensors = {k: v for k, v in whole.items() if k != name}
            with pytest.raises(ModelFileError, match=f"'{name}' is missing"):
                load_model(files)
        wrong = replace(info, shape=(*info.shape[:-1], info.shape[-1] + 1))
        opened.file.tensors = {**whole, name: wrong}
        with pytest.raises(ModelFileError, match=f"'{name}' has shape"):
            load_model(files)
    opened.file.tensors = whole
    load_model(files)


def test_a_missing_tensor(checkpoint):
    checkpoint.tensors(lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ModelFileError, match=r"'model\.layers\.1\.mlp\.up_proj\.weight' is missing"):
        checkpoint.load()


def test_extra_tensors(checkpoint):
    checkpoint.tensors(lambda t: t.update({f"model.extra.{i}": torch.zeros(2) for i in range(5)}))
    with pytest.raises(ModelFileError, match=r"unexpected tensors: 'model\.extra\.0'.* and 2 more"):
        checkpoint.load()


def test_a_misshaped_tensor(checkpoint):
    checkpoint.tensors(lambda t: t.update({"model.norm.weight": torch.zeros(63)}))
    with pytest.raises(ModelFileError, match=r"'model\.norm\.weight' has shape 63; .* says 64"):
        checkpoint.load()
    checkpoint.tensors(lambda t: t.update({"model.norm.weight": torch.zeros(64, dtype=torch.int32)}))
    with pytest.raises(UnsupportedModel, match=r"'model\.norm\.weight' has type i32"):
        checkpoint.load()


def test_constants_and_repeated_tied_heads_are_ignored(checkpoint):
    checkpoint.config(tie_word_embeddings=True)
    checkpoint.tensors(lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)}))
    checkpoint.load()


def test_an_unknown_architecture_lists_the_known_ones(checkpoint):
    checkpoint.config(architectures=["GrokForCausalLM"], model_type="grok")
    with pytest.raises(UnsupportedModel, match=r"'GrokForCausalLM'.*LlamaForCausalLM.*Qwen3ForCausalLM"):
        checkpoint.load()


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"hidden_size": "64"}, ModelFileError, "hidden_size must be a whole number"),
        ({"hidden_size": None}, ModelFileError, "hidden_size is missing"),
        ({"num_hidden_layers": 3}, ModelFileError, r"layers\.2.*missing"),
        ({"num_hidden_layers": -1}, ModelFileError, "num_hidden_layers"),
        ({"num_hidden_layers": 10**12}, ModelFileError, "num_hidden_layers"),
        ({"num_hidden_layers": 10**9}, ModelFileError, "num_hidden_layers must be at most 4096"),
        ({"hidden_size": 2**40}, ModelFileError, "hidden_size must be at most"),
        ({"vocab_size": 0}, ModelFileError, "vocab_size"),
        ({"vocab_size": 2**30}, ModelFileError, "vocab_size must be at most"),
        ({"head_dim": 0}, ModelFileError, "head_dim"),
        ({"head_dim": 2**14, "num_attention_heads": 2**10}, ModelFileError, "too many"),
        ({"max_position_embeddings": 2**30}, ModelFileError, "max_position_embeddings must be at most"),
        ({"eos_token_id": [2, 160]}, ModelFileError, "160 is not one of 160 tokens"),
        ({"rope_parameters": {"rope_theta": 1e300}}, ModelFileError, "rope_theta"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 1e9}}, ModelFileError, "stretches the context"),
        ({"hidden_act": "x" * 10**6}, UnsupportedModel, "hidden_act"),
        ({"num_key_value_heads": 3}, ModelFileError, "cannot share 3"),
        ({"rms_norm_eps": "NaN"}, ModelFileError, "rms_norm_eps"),
        ({"rms_norm_eps": -1e-5}, ModelFileError, "rms_norm_eps"),
        ({"tie_word_embeddings": "yes"}, ModelFileError, "tie_word_embeddings"),
        ({"vocab_size": 161}, ModelFileError, r"embed_tokens\.weight' has shape 160x64.*161x64"),
        ({"architectures": []}, ModelFileError, "architectures"),
        ({"architectures": [3]}, ModelFileError, "architectures"),
        ({"eos_token_id": "end"}, ModelFileError, "eos_token_id"),
        ({"hidden_act": "gelu"}, UnsupportedModel, "gelu"),
        (
            {"quantization_config": {"quant_method": "exotic"}},
            UnsupportedModel,
            "'exotic'.*gguf, mxfp4, none",
        ),
        ({"quantization_config": []}, ModelFileError, "quantization_config must be an object"),
        ({"rope_parameters": {"rope_type": "spiral"}}, UnsupportedModel, "'spiral'"),
        ({"rope_parameters": {"rope_type": "linear"}}, ModelFileError, "factor is missing"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 0}}, ModelFileError, "factor"),
        ({"rope_parameters": {"rope_theta": 1}}, ModelFileError, "rope_theta"),
        (
            {"rope_parameters": {**LONGROPE, "short_factor": [1.0] * 7}},
            ModelFileError,
            "short_factor must be 8",
        ),
        ({"rope_parameters": {**LONGROPE, "long_factor": None}}, ModelFileError, "long_factor must be 8"),
        ({"rope_parameters": {**LONGROPE, "long_factor": [0] * 8}}, ModelFileError, "long_factor must be 8"),
        (
            {"rope_parameters": {**LONGROPE, "original_max_position_embeddings": 1}},
            ModelFileError,
            "stretch a context of one",
        ),
        ({"rope_parameters": {"partial_rotary_factor": 7}}, ModelFileError, "cannot rotate 112 of 16"),
        (
            {"rope_parameters": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 5}},
            ModelFileError,
            "high_freq_factor",
        ),
    ],
)
def test_wrong_configurations_are_named(checkpoint, changes, error, says):
    if "rope_parameters" in changes:
        changes = {"rope_parameters": {"rope_theta": 10000.0, **changes["rope_parameters"]}}
    checkpoint.config(**changes)
    with pytest.raises(error, match=says):
        checkpoint.load()


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_broken_config(checkpoint, content):
    (checkpoint.directory / "config.json").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"config\.json: malformed"):
        checkpoint.load()


def test_no_config(checkpoint):
    (checkpoint.directory / "config.json").unlink()
    with pytest.raises(ModelFileError, match=r"config\.json: cannot read it"):
        checkpoint.load()


def test_older_spelling_of_rope(checkpoint):
    path = checkpoint.directory / "config.json"
    config = json.loads(path.read_text())
    del config["rope_parameters"]
    config |= {"rope_theta": 5000.0, "rope_scaling": {"type": "yarn", "factor": 4.0}}
    config |= {"max_position_embeddings": 256}
    path.write_text(json.dumps(config))
    assert checkpoint.load().spec.max_position == 1024


def test_wrong_arguments(checkpoint):
    with pytest.raises(ConfigError, match="float16"):
        checkpoint.load("float16")
    with pytest.raises(ConfigError, match=r"513.*512"):
        checkpoint.load(max_model_len=513)


@pytest.mark.parametrize("types", [["full_attention"], ["full_attention", "chunked_attention"], "all"])
def test_layer_types_that_there_are_not(types, checkpoint):
    checkpoint.config(layer_types=types, sliding_window=100)
    with pytest.raises(UnsupportedModel, match="layer_types must name one of full_attention"):
        checkpoint.load()


@pytest.mark.parametrize(
    ("extra", "error", "says"),
    [
        ({"expert_count": 8}, ModelFileError, "expert_used_count is missing"),
        ({"attention__value_length": 8}, UnsupportedModel, "differ in width"),
        ({"rope__scaling__type": "longrope"}, ModelFileError, r"'rope_factors_short\.weight' is missing"),
        ({"_rope_factors_long": np.ones(8, np.float32)}, ModelFileError, r"'rope_factors_short\.weight'"),
        ({"_rope_freqs": np.ones(7, np.float32)}, ModelFileError, "rope_freqs"),
        ({"_rope_freqs": np.zeros(8, np.float32)}, ModelFileError, "finite positive"),
        ({"_blk.0.surprise": np.zeros(8, np.float32)}, ModelFileError, r"'blk\.0\.surprise\.weight'"),
    ],
)
def test_gguf_files_with_what_is_not_supported(extra, error, says, tmp_path, seed):
    files = save_gguf(make(tiny("llama"), seed), tmp_path / "m.gguf", **extra)
    with pytest.raises(error, match=says):
        load_model(files)


def test_gguf_rope_of_old_files(tmp_path, seed):
    files = save_gguf(make(tiny("llama"), seed), tmp_path / "m.gguf", rope__scale_linear=2.0)
    model = load_model(files)
    assert model.blocks[0].attention.rope.config.scaling == "linear"
    assert model.blocks[0].attention.rope.config.factor == 2.0
    assert model.spec.eos_token_ids == (3,)


@pytest.mark.parametrize(
    ("quantization", "layers", "table"), [("int8", "s8_d16", "s8_d16"), ("int4", "u4_dm16", "s8_d16")]
)
def test_floats_are_quantized_when_asked(checkpoint, quantization, layers, table):
    pytest.importorskip("tenon.kernels.cpu._native")
    model = checkpoint.load(quantization=quantization)
    assert set(model.blocks[0].attention.qkv.weight.packed_NK.formats) == {layers}
    assert model.embed.table_VD.formats == [table]


def test_nothing_to_quantize_is_an_error(tmp_path, seed):
    files = save_gguf(make(tiny("llama"), seed), tmp_path / "m.gguf", lambda name: Type.Q8_0)
    with pytest.raises(ConfigError, match="quantization int4: no weights here are floats"):
        load_model(files, quantization="int4")
