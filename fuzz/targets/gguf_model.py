"""A GGUF model's header, whose data is zeros, to a model that runs."""

from __future__ import annotations

from fuzz import scratch, tiny_models
from tenon.core.files import ModelFiles
from tenon.errors import ConfigError, ModelFileError
from tenon.models import load_model
from tenon.util import plugin

EXPECTED = (ModelFileError, ConfigError)
DATA = bytes(64 << 10)
_PATH = scratch.directory("gguf_model") / "model.gguf"
_FAMILIES = [name for name in tiny_models.FAMILIES if plugin.load("tenon.models", name).GGUF_ARCHITECTURES]
DICTIONARY = [b"blk.0.attn_q.bias", b"rope_freqs.weight", b"output.weight", b"token_embd.weight"]
DICTIONARY += [b"llama.rope.scaling.type", b"llama.attention.sliding_window", b"llama.expert_count"]


def seeds() -> dict[str, bytes]:
    found = {name: tiny_models.gguf_header(name) for name in _FAMILIES}
    for name in _FAMILIES:
        (architecture, *_) = plugin.load("tenon.models", name).GGUF_ARCHITECTURES
        for key, value in {
            "context_length": 2**32 - 1,
            "block_count": 10**9,
            "embedding_length": 2**31 - 1,
            "attention.head_count": 0,
            "attention.head_count_kv": 7,
            "attention.key_length": 2**31,
            "rope.freq_base": float("nan"),
            "attention.layer_norm_rms_epsilon": float("inf"),
            "rope.scaling.type": "yarn",
        }.items():
            found[f"{name} {key}"] = tiny_models.gguf_header(name, {f"{architecture}.{key}": value})
        found[f"{name} eos"] = tiny_models.gguf_header(name, {"tokenizer.ggml.eos_token_id": 2**32 - 1})
    return found


def run(data: bytes) -> None:
    scratch.write(_PATH, data.ljust(-(-len(data) // 32) * 32, b"\0") + DATA)
    load_model(ModelFiles("gguf", (_PATH,), "m", _PATH.parent))
