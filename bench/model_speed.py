"""How near to the limits of this machine every family of models runs, on random weights of a published shape.

    python bench/model_speed.py [FAMILY ...]

Of each family the first layers of its largest shape are written, as many as show every kind of layer, and
with fewer experts where a layer alone would be too large; loaded in four bits (or as the family's own format
has it), they read a prompt and generate. Decode is judged against the bandwidth of reading what one token
needs, prefill against the peak of matrix products, both probed in the same run. Updates
bench/results/model_speed.json, for docs/reference/models.md.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tenon.bench.make_model import CHOSEN, EXPERTS, blueprint, shrunk  # noqa: E402
from tenon.bench.make_model import LAYERS as NAMES_OF_LAYERS  # noqa: E402
from tenon.util import plugin  # noqa: E402

OUT = ROOT / "bench" / "results" / "model_speed.json"
LAYERS = 6  # five windows and one full attention, three recurrent layers and one full, dense first layers
MOST_PARAMETERS = 2_500_000_000
SHAPE = ("--input-len", "512", "--output-len", "64", "--num-iters", "3")


def families() -> list[str]:
    return [name for name in plugin.names("tenon.models") if getattr(_family(name), "SIZES", None)]


def _family(name: str) -> Any:
    return plugin.load("tenon.models", name)


def number_of_layers(config: dict[str, Any]) -> int:
    return int(next(config[name] for name in NAMES_OF_LAYERS if name in config))


def cut(family: Any, config: dict[str, Any]) -> dict[str, int]:
    """Layers, and experts if there are too many, of a model that is small enough: layers show what a model
    is, so experts go first, and then layers."""
    kept = {"layers": min(LAYERS, number_of_layers(config))}
    field = next((name for name in EXPERTS if config.get(name)), None)
    while parameters(family, shrunk(config, **kept)) > MOST_PARAMETERS:
        experts = kept.get("experts", config[field]) if field else 0
        if field and experts > (fewest := fewest_experts(config)):
            kept["experts"] = max(fewest, experts // 2)
        elif kept["layers"] > 1:
            kept["layers"] -= 1
        else:
            break
    return kept


def fewest_experts(config: dict[str, Any]) -> int:
    """Twice as many as a token goes to, in groups that are all as large."""
    chosen = next(config[name] for name in CHOSEN if name in config)
    groups = config.get("n_group") or 1
    return math.ceil(2 * chosen / groups) * groups


def parameters(family: Any, config: dict[str, Any]) -> float:
    tensors = blueprint(family, config | {"vocab_size": 49152}, None)
    return sum(float(tensor.num_bytes) / 4 for tensor in tensors)


def tenon(*arguments: str) -> str:
    command = [sys.executable, "-m", "tenon", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def speed(name: str) -> dict[str, Any]:
    family = _family(name)
    size, config = max(family.SIZES.items(), key=lambda item: item[1]["hidden_size"])
    kept = cut(family, config)
    options = [text for key, value in kept.items() for text in (f"--{key}", str(value))]
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / name)
        tenon(
            "bench", "make-model", path, "--like", name, "--size", size, "--format", "safetensors", *options
        )
        own = config.get("quantization_config", {}).get("quant_method")
        stored = [] if own else ["--quantization", "int4"]
        found = json.loads(
            tenon("bench", "latency", path, *SHAPE, *stored, "--max-model-len", "1024", "--json", "-")
        )
    roof = found["roof"]
    return {
        "size": size,
        **kept,
        "weights": own or "int4",
        "forward_pass": found["engine"]["forward_pass"],
        "prefill_tokens_per_s": round(found["prefill_tokens_per_s"], 1),
        "decode_tokens_per_s": round(found["decode_tokens_per_s"], 1),
        "prefill_fraction": round(roof["prefill_fraction"], 3),
        "decode_fraction": round(roof["decode_fraction"], 3),
        "bandwidth_gb_per_s": round(roof["bandwidth_gb_per_s"], 1),
    }


def main() -> int:
    known = json.loads(OUT.read_text()) if OUT.exists() else {"families": {}, "figures": {}}
    for name in sys.argv[1:] or families():
        figures = known["figures"][name] = speed(name)
        known["families"][name] = figures["decode_fraction"]
        print(name, json.dumps(figures), flush=True)
        OUT.write_text(json.dumps(known, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
