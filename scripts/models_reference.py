"""Write docs/reference/models.md from tenon/models and bench/results. A test checks that it is current."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from tenon.bench.make_model import read_tiny
from tenon.util import plugin

ROOT = Path(__file__).parents[1]
PATH = ROOT / "docs" / "reference" / "models.md"
PARITY = ROOT / "bench" / "results" / "model_parity.json"
SPEED = ROOT / "bench" / "results" / "model_speed.json"
HEAD = """# Models

Made from the code by `make docs`. A family is one file of `tenon/models`; how to add one is
[here](../how-to-add-a-model.md).

*Parity* is the largest difference of a logit from transformers in float32, in units of the largest logit, on
a small random model (`bench/model_parity.py`). *Decode* is the share of the memory bandwidth that decoding
reaches, on random weights of a published shape. What has no figure has not been measured yet.

Every family loads safetensors in bf16, f16, f32 and [FP8](../quantization.md#fp8) (E4M3 with scales of
blocks), and GGUF in the types of [quantised weights](../quantization.md) where it has an architecture there.

| family | architectures | GGUF | features | parity | decode | shapes of `make-model` |
|---|---|---|---|---|---|---|
"""


def reference() -> str:
    return (
        HEAD + "".join(row(name, plugin.load("tenon.models", name)) for name in families()) + "\n" + notes()
    )


def families() -> list[str]:
    return plugin.names("tenon.models")


def row(name: str, family: ModuleType) -> str:
    architectures = [f"`{one}`" for one in family.ARCHITECTURES]
    architectures += [f"`{one}` ({task})" for one, task in family.POOLING_ARCHITECTURES.items()]
    cells = [
        f"`{name}`",
        ", ".join(architectures),
        ", ".join(f"`{one}`" for one in family.GGUF_ARCHITECTURES) or "-",
        ", ".join(features(family)) or "-",
        figure(PARITY, name, "{:.1e}"),
        figure(SPEED, name, "{:.0%}"),
        ", ".join(getattr(family, "SIZES", {})) or "-",
    ]
    return f"| {' | '.join(cells)} |\n"


def features(family: ModuleType) -> list[str]:
    """What a family's smallest configuration, which has all of its features, switches on."""
    if getattr(family, "ENCODER", False):
        return ["attention both ways"]
    config = read_tiny(family)
    found = [text for flag, text in FEATURES.items() if getattr(config, flag, False)]
    experts = getattr(config, "experts", None)
    sizes = getattr(family, "SIZES", {}).values()
    methods = {size["quantization_config"]["quant_method"] for size in sizes if "quantization_config" in size}
    found += [f"published in {method}" for method in sorted(methods)]
    return found if experts is None else found + expert_features(config)


FEATURES = {
    "qkv_bias": "biases of q, k, v",
    "head_norms": "norms of heads",
    "joint_norms": "norms over all heads",
    "unit_norms": "norms of heads without weights",
    "windows": "sliding windows",
    "chunks": "attention within chunks",
    "unrotated": "layers without rotation",
    "temperature": "attention that sharpens with the position",
    "sinks": "attention sinks",
    "output_gate": "gated attention",
    "recurrent": "recurrent layers",
    "fused": "fused projections",
    "tied_head": "tied head",
}


def expert_features(config: Any) -> list[str]:
    experts, routing = config.experts, config.experts.routing
    found = [f"experts chosen by {routing.scores}"]
    if experts.shared:
        found.append("shared experts" + (" with a gate" if experts.shared_gate else ""))
    if experts.weigh_inputs:
        found.append("weights of what experts get")
    if experts.biases:
        found.append("biases of experts")
    if experts.clamp:
        found.append("clamped SwiGLU")
    if config.dense_layers:
        found.append("dense first layers")
    return found


def figure(path: Path, family: str, form: str) -> str:
    known = json.loads(path.read_text())["families"] if path.exists() else {}
    return form.format(known[family]) if family in known else "-"


def notes() -> str:
    """What each family says of itself."""
    lines = ["| family | |\n|---|---|\n"]
    for name in families():
        text = (plugin.load("tenon.models", name).__doc__ or "").split("\n\n")[0]
        lines.append(f"| `{name}` | {' '.join(text.split())} |\n")
    return "".join(lines)


if __name__ == "__main__":
    PATH.write_text(reference())
