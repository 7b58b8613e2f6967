"""How soon a safetensors directory answers: `tenon serve` in place and packed, and transformers, in turns.

    python bench/start.py MODEL [--rounds 3] [--kv-cache-memory 512MiB] [--out bench/results/NAME]

tenon is ready when `/ready` says so; it has then run the model once. transformers is loaded when
`from_pretrained` returns in a new process. Its weights are mapped then and not read, so its first forward
pass, of four tokens, is timed as well. The files are read once before, so that all find them in the page
cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tenon.bench import startup

TENON = {"tenon, in place": [], "tenon, packed at start": ["--load-format", "pack"]}
PEER = """
import sys, time
start = float(sys.argv[2])
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
loaded = time.time() - start
with torch.no_grad():
    model(torch.tensor([[1, 2, 3, 4]]))
print(loaded, time.time() - start)
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kv-cache-memory", default="512MiB")
    parser.add_argument("--only", nargs="*", help="parts of the names of rows")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    for path in args.model.glob("*.safetensors"):
        with path.open("rb") as file:
            while file.read(64 << 20):
                pass
    seconds: dict[str, list[float]] = {}
    resident: dict[str, int] = {}
    for _ in range(args.rounds):
        for name, options in TENON.items():
            if args.only and not any(part in name for part in args.only):
                continue
            serve = [str(args.model), "--kv-cache-memory", args.kv_cache_memory, *options]
            measured = startup.measure(serve, 1)
            seconds.setdefault(f"{name}: ready", []).append(measured["ready_s"])
            resident[f"{name}: ready"] = measured["rss_bytes"]
        if args.only and "transformers" not in args.only:
            continue
        loaded, first = transformers(args.model)
        seconds.setdefault("transformers: loaded", []).append(loaded)
        seconds.setdefault("transformers: first forward pass done", []).append(first)
    lines = ["| | seconds, in order | best |", "|---|---|---|"]
    for name, times in seconds.items():
        lines.append(f"| {name} | {', '.join(f'{t:.1f}' for t in times)} | {min(times):.1f} |")
    print("\n".join(lines))
    for name, size in resident.items():
        print(f"{name}: {size / 2**20:.0f} MiB resident")
    if args.out:
        facts = {"seconds": seconds, "resident": resident, "load": os.getloadavg()}
        args.out.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n")


def transformers(model: Path) -> tuple[float, float]:
    """Seconds until it has loaded, and until it has computed something, from the start of its process."""
    done = subprocess.run(
        [sys.executable, "-c", PEER, str(model), str(time.time())], capture_output=True, text=True, check=True
    )
    loaded, first = map(float, done.stdout.split())
    return loaded, first


if __name__ == "__main__":
    main()
