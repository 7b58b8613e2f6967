"""How much memory a long request takes for K and V, of a model most of whose layers have a window.

    python bench/hybrid_memory.py [TOKENS]

A narrow Gemma 3 with random weights, whose heads of K and V are those of the 4B model, reads a prompt and
generates 8 tokens: once as it is, once with all layers in one group, which keeps everything. What is measured
is how much the resident memory of a process grows, after a prompt of one step of STEP tokens; each has its
own. Without prefix caching, which keeps blocks of windows for as long as nothing else needs their memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

SHAPE = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 4}
TOKENS, STEP = 12288, 512


def resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS:"))


def make(path: Path) -> None:
    from tenon.bench.make_model import make_model
    from tenon.cli.models import ensure_here
    from tenon.config import DEFAULT_MODEL
    from tenon.util import plugin

    gemma3 = plugin.load("tenon.models", "gemma3")
    gemma3.SIZES["narrow"] = {**gemma3.SIZES["4B"], **SHAPE}
    make_model(
        "gemma3", "narrow", path, tokenizer=ensure_here(DEFAULT_MODEL), format="safetensors", dtype="bf16"
    )


def measure(path: str, tokens: int, grouped: bool) -> int:
    """Bytes by which one request lets this process grow."""
    from tenon import LLM, SamplingParams
    from tenon.models import _decoder

    if not grouped:
        as_usual = _decoder.group_layers
        _decoder.group_layers = lambda layers: as_usual([replace(layer, window=0) for layer in layers])
    llm = LLM(
        path,
        max_model_len=tokens + 64,
        max_num_batched_tokens=STEP,
        kv_cache_memory="8GiB",
        enable_prefix_caching=False,
    )
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    llm.generate([{"prompt_token_ids": [5] * STEP}], params, use_tqdm=False)  # buffers of a step
    before = resident()
    prompt = [7 + i % 1000 for i in range(tokens)]
    llm.generate([{"prompt_token_ids": prompt}], params, use_tqdm=False)
    return resident() - before


def main() -> int:
    if sys.argv[1:2] == ["--one"]:
        print(measure(sys.argv[2], int(sys.argv[3]), sys.argv[4] == "grouped"))
        return 0
    tokens = int(sys.argv[1]) if sys.argv[1:] else TOKENS
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model"
        make(path)
        for how in ("grouped", "one group"):
            command = [sys.executable, __file__, "--one", str(path), str(tokens), how]
            grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(json.dumps({"tokens": tokens, "layers": how, "mib": round(grown / 2**20, 1)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
