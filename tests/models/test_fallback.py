"""Models that transformers runs, around tenon's attention and cache: close to transformers alone, whatever
the steps; and refused, with the reason, where that cannot be."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.starcoder2.modeling_starcoder2 import Starcoder2MLP

from tenon import LLM, SamplingParams
from tenon.config import EngineArgs
from tenon.errors import ConfigError, ModelFileError, UnsupportedModel
from tenon.models import _fallback, load_model
from tests.models.driver import Driver
from tests.models.families import reference_logits, save_safetensors

SMALL = {
    "vocab_size": 160,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
CONFIGS = {
    "starcoder2": {**SMALL, "sliding_window": None},
    "starcoder2-window": {**SMALL, "sliding_window": 40},
    "stablelm": {**SMALL, "partial_rotary_factor": 0.5},
    "cohere": {**SMALL, "logit_scale": 0.25},
    "gpt_neox": {**SMALL, "rotary_pct": 0.5},
    "gpt2": {"vocab_size": 160, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512},
}


def make(name, seed, **changes):
    torch.manual_seed(seed)
    settings = {**CONFIGS[name], **changes}
    config = AutoConfig.for_model(name.partition("-")[0], **settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():  # so that every part matters
            if parameter.dim() >= 2:
                parameter.mul_(1.5 / parameter.shape[-1] ** 0.5 / parameter.std())
            else:
                parameter.add_(torch.randn(parameter.shape) * 0.3)
    return model


def load(files, dtype="float32", **options):
    return load_model(files, dtype, model_impl="transformers", **options)


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


@pytest.fixture
def starcoder(tmp_path, seed):
    return save_safetensors(make("starcoder2", seed), tmp_path)


def change(files, **values):
    path = files.directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("name", CONFIGS)
def test_ragged_steps_match_transformers(name, tmp_path, seed, rng):
    reference = make(name, seed)
    driver = Driver(load(save_safetensors(reference, tmp_path)), rng)
    sequences = [rng.integers(0, 160, n).tolist() for n in (70, 33, 101, 5)]
    got = [[] for _ in sequences]
    while unfinished := [i for i, s in enumerate(sequences) if driver.lengths[i] < len(s)]:
        chosen = rng.permutation(unfinished)[: rng.integers(1, 5)]
        work = [
            (int(i), sequences[i][driver.lengths[i] :][: int(rng.choice([1, 7, 32, 40]))]) for i in chosen
        ]
        for (i, _), logits_SV in zip(work, driver.step(work), strict=True):
            got[i].append(logits_SV)
    for tokens, parts in zip(sequences, got, strict=True):
        expected = reference_logits(reference, tokens)
        assert np.abs(np.concatenate(parts) - expected).max() < 1e-4 * np.abs(expected).max()


def test_bfloat16_stays_close(tmp_path, seed, rng):
    reference = make("starcoder2", seed)
    tokens = rng.integers(0, 160, 64).tolist()
    (got,) = Driver(load(save_safetensors(reference, tmp_path), "auto"), rng).step([(0, tokens)])
    expected = reference_logits(reference, tokens)
    assert np.linalg.norm(got - expected) < 5e-2 * np.linalg.norm(expected)


def test_it_is_never_chosen_silently(starcoder):
    with pytest.raises(UnsupportedModel, match=r"'Starcoder2ForCausalLM' is not supported; .*--model-impl"):
        load_model(starcoder)


def test_the_engine_runs_it_and_says_so(starcoder, smollm2_gguf, caplog):
    llm = LLM(
        str(starcoder.directory),
        tokenizer=str(smollm2_gguf),
        model_impl="transformers",
        kv_cache_memory="4MiB",
        max_model_len=64,
    )
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    outputs = llm.generate([{"prompt_token_ids": [5, 6, 7]}] * 2, params, use_tqdm=False)
    assert outputs[0].outputs[0].token_ids == outputs[1].outputs[0].token_ids
    assert len(outputs[0].outputs[0].token_ids) == 8


def test_its_spec_says_what_runs_it(starcoder):
    spec = load(starcoder).spec
    assert "transformers" in spec.implementation
    assert "fallback" in spec.implementation
    assert (spec.model_type, spec.vocab_size, spec.max_position) == ("starcoder2", 160, 512)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            {"model_type": "bloom", "n_layer": 1, "hidden_size": 32, "n_head": 2, "vocab_size": 160},
            "does not say how many positions",
        ),
        ({"model_type": "mamba", "num_hidden_layers": 1, "hidden_size": 32, "vocab_size": 160}, "attention"),
        (
            {
                **SMALL,
                "model_type": "falcon_h1",
                "head_dim": 16,
                "mamba_d_ssm": 64,
                "mamba_n_heads": 4,
                "mamba_d_head": 16,
                "mamba_d_state": 8,
            },
            "layers of the kind hybrid",
        ),
        (
            {
                "model_type": "lfm2",
                **SMALL,
                "layer_types": ["conv", "full_attention"],
            },
            "layers of the kind conv",
        ),
        (
            {
                **SMALL,
                "model_type": "llama",
                "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
            },
            "stretched by the longest sequence",
        ),
        ({**SMALL, "model_type": "gemma2", "head_dim": 16, "attn_logit_softcapping": 50.0}, "softcap"),
    ],
    ids=lambda value: value.get("model_type") if isinstance(value, dict) else "",
)
def test_what_cannot_be_run_is_refused_with_the_reason(config, says, tmp_path):
    settings = {key: value for key, value in config.items() if key != "model_type"}
    hf = AutoConfig.for_model(config["model_type"], **settings)
    files = save_safetensors(AutoModelForCausalLM.from_config(hf), tmp_path)
    with pytest.raises(UnsupportedModel, match=f"transformers cannot run .*{says}"):
        load(files)


def test_tokens_must_meet_in_attention_alone(starcoder, monkeypatch):
    plain = Starcoder2MLP.forward
    monkeypatch.setattr(Starcoder2MLP, "forward", lambda self, x: plain(self, x + x.roll(1, dims=1)))
    with pytest.raises(UnsupportedModel, match="something beside attention connects its tokens"):
        load(starcoder)


def test_remote_code_is_refused(starcoder):
    change(starcoder, model_type="surprise", auto_map={"AutoConfig": "evil.Config"})
    (starcoder.directory / "evil.py").write_text("raise SystemExit('this was run')\nclass Config: pass\n")
    with pytest.raises(UnsupportedModel):
        load(starcoder)


def test_tensors_are_refused_by_name(starcoder, seed):
    from safetensors.torch import load_file, save_file

    path = starcoder.paths[0]
    whole = load_file(path)
    name = "model.layers.1.mlp.c_fc.weight"
    save_file({k: v for k, v in whole.items() if k != name}, path, {"format": "pt"})
    with pytest.raises(ModelFileError, match=f"missing keys: {name}"):
        load(starcoder)
    save_file({**whole, "model.surprise": torch.zeros(2)}, path, {"format": "pt"})
    with pytest.raises(ModelFileError, match=r"unexpected keys: model\.surprise"):
        load(starcoder)
    save_file({**whole, name: torch.zeros(3, 3)}, path, {"format": "pt"})
    with pytest.raises(ModelFileError, match=name):
        load(starcoder)


def test_it_must_be_installed(starcoder, monkeypatch):
    monkeypatch.setattr(_fallback.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs torch and transformers: pip install 'tenon\[fallback\]'"):
        load(starcoder)


def test_arguments_that_it_does_not_take(starcoder, tmp_path):
    for name, value in {"quantization": "int8", "activations": "bfloat16", "convert": "embed"}.items():
        with pytest.raises(ConfigError, match=f"{name} cannot be given with model_impl transformers"):
            EngineArgs(model="x", model_impl="transformers", **{name: value}).resolve()
    with pytest.raises(ConfigError, match="513"):
        load(starcoder, max_model_len=513)
