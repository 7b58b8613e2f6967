"""A model's directory with every family's config.json, and the small files beside it, to a model that runs.

An input is the files' texts, separated by NUL, in the order of FILES.
"""

from __future__ import annotations

import json
from typing import Any

from fuzz import scratch, tiny_models
from tenon.core.files import ModelFiles
from tenon.errors import ConfigError, ModelFileError
from tenon.models import load_model
from tenon.util import plugin

EXPECTED = (ModelFileError, ConfigError)
FILES = (
    "config.json",
    "generation_config.json",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
)
_DIRECTORIES = {family: tiny_models.directory(family) for family in tiny_models.FAMILIES}
_KEYS = {key for family in tiny_models.FAMILIES for key in plugin.load("tenon.models", family).TINY}
_KEYS |= {"rope_parameters", "rope_scaling", "rope_type", "factor", "head_dim", "sliding_window", "id2label"}
_KEYS |= {"quantization_config", "quant_method", "eos_token_id", "layer_types", "hidden_act", "num_labels"}
DICTIONARY = [f'"{key}"'.encode() for key in sorted(_KEYS)]


def seeds() -> dict[str, bytes]:
    found = {}
    for family in tiny_models.FAMILIES:
        module, config = plugin.load("tenon.models", family), tiny_models.config(family)
        for name in (*module.ARCHITECTURES, *module.POOLING_ARCHITECTURES):
            found[f"{family} {name}"] = _files(config | {"architectures": [name]})
        for key in config:
            for value in (2**40, 0, 10**9, None):
                found[f"{family} {key} {value}"] = _files(config | {key: value})
    llama = tiny_models.config("llama")
    for kind in ("linear", "dynamic", "llama3", "yarn", "default"):
        rope = {"rope_type": kind, "factor": 2.0, "rope_theta": 10000.0}
        found[f"rope {kind}"] = _files(llama | {"rope_parameters": rope})
    modules = [{"type": "a.Transformer"}, {"type": "a.Pooling", "path": "1_Pooling"}, {"type": "a.Normalize"}]
    pooling = {"pooling_mode_mean_tokens": True}
    rest = ({"eos_token_id": [1, 2]}, modules, pooling, {"max_seq_length": 32})
    found["sentence-transformers"] = _files(tiny_models.config("bert"), *rest)
    return found


def _files(*values: Any) -> bytes:
    return b"\0".join(json.dumps(value).encode() for value in values)


def run(data: bytes) -> None:
    texts = data.split(b"\0", len(FILES) - 1)
    family = next((name for name in reversed(tiny_models.FAMILIES) if f'"{name}"'.encode() in data), "llama")
    directory = _DIRECTORIES[family]
    for index, name in enumerate(FILES):
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        if index < len(texts):
            scratch.write(path, texts[index])
        else:
            path.unlink(missing_ok=True)
    load_model(ModelFiles("hf", (directory / "model.safetensors",), "m", directory))
