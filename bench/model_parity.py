"""How far the logits of every family are from transformers', in float32, on small random models.

    python bench/model_parity.py [FAMILY ...]

Goal: 1e-4 of the largest logit. Updates bench/results/model_parity.json, for docs/reference/models.md; fails,
and writes nothing, when a family misses the goal.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tenon.models import load_model  # noqa: E402
from tests.models.driver import Driver  # noqa: E402
from tests.models.families import FAMILIES, make, reference_logits, save_safetensors, tiny  # noqa: E402

GOAL = 1e-4
OUT = ROOT / "bench" / "results" / "model_parity.json"


def error(family: str, seed: int) -> float:
    """The largest difference over a prompt of 90 tokens read in three pieces."""
    rng = np.random.default_rng(seed)
    tokens = [int(token) for token in rng.integers(0, 160, 90)]
    model = make(tiny(family), seed)
    with tempfile.TemporaryDirectory() as directory:
        driver = Driver(load_model(save_safetensors(model, Path(directory)), "float32"), rng)
        pieces = [driver.step([(0, part)])[0] for part in (tokens[:33], tokens[33:89], tokens[89:])]
    expected = reference_logits(model, tokens)
    return float(np.abs(np.concatenate(pieces) - expected).max() / np.abs(expected).max())


def main() -> int:
    families = sys.argv[1:] or FAMILIES
    errors = {family: max(error(family, seed) for seed in range(3)) for family in families}
    for family, value in errors.items():
        print(f"{family:16} {value:.1e}  {'pass' if value < GOAL else 'FAIL'}")
    if max(errors.values()) >= GOAL:
        return 1
    known = json.loads(OUT.read_text())["families"] if OUT.exists() else {}
    found = known | {family: float(f"{value:.2g}") for family, value in errors.items()}
    OUT.write_text(json.dumps({"goal": GOAL, "families": dict(sorted(found.items()))}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
