"""The smallest checkpoints of each family. Weights are zero, as what is fuzzed is what describes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fuzz import scratch
from tenon.bench.make_model import blueprint
from tenon.formats.writing import NewTensor, gguf_layout, safetensors_layout
from tenon.models._decoder import GGUF_FIELDS
from tenon.util import plugin

FAMILIES = plugin.names("tenon.models")
SMALL = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 32, "max_position_embeddings": 64}
SMALL |= {"num_attention_heads": 2, "num_hidden_layers": 1}


def config(family: str) -> dict[str, Any]:
    """config.json"""
    tiny = dict(plugin.load("tenon.models", family).TINY) | SMALL
    if "num_key_value_heads" in tiny:
        tiny["num_key_value_heads"] = 1
    if "head_dim" in tiny:
        tiny["head_dim"] = 16
    if "full_attention_interval" in tiny:
        tiny["num_hidden_layers"] = tiny["full_attention_interval"]
    if "layer_types" in tiny:
        tiny["num_hidden_layers"] = len(tiny["layer_types"])
    return tiny


def tensors(family: str, *, gguf: bool = False) -> list[NewTensor]:
    module = plugin.load("tenon.models", family)
    found = blueprint(module, config(family), module.WEIGHTS if gguf else None)
    return list({tensor.name: tensor for tensor in found}.values())


def directory(family: str, rng: np.random.Generator | None = None) -> Path:
    """A model in Hugging Face format, with random weights if it is told where to take them from."""
    path = scratch.directory(f"model-{family}")
    (path / "config.json").write_text(json.dumps(config(family)))
    layout = safetensors_layout(tensors(family))
    size = layout.size - len(layout.header)
    data = bytes(size) if rng is None else rng.uniform(0.1, 1, size // 4).astype(np.float32).tobytes()
    scratch.write(path / "model.safetensors", layout.header + data)
    return path


def gguf_header(family: str, extra: dict[str, Any] | None = None) -> bytes:
    """A GGUF file up to its data, which is zeros."""
    module, values = plugin.load("tenon.models", family), config(family)
    (architecture, *_) = module.GGUF_ARCHITECTURES
    metadata: dict[str, Any] = {"general.architecture": architecture}
    for field, keys in getattr(module, "GGUF_FIELDS", GGUF_FIELDS).items():
        if field in values:
            metadata |= {f"{architecture}.{key}": values[field] for key in keys}
    if hasattr(module, "gguf_metadata"):
        metadata |= {f"{architecture}.{key}": value for key, value in module.gguf_metadata(values).items()}
    return gguf_layout(metadata | (extra or {}), tensors(family, gguf=True)).header
