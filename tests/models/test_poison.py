"""Whatever memory held before, a loaded model is the same: loaders leave nothing unwritten.

Each model is loaded in two processes whose allocator fills what it hands out with different bytes, in one of
them after another model, and all that it consists of is compared.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tenon.kernels import cpu
from tenon.util import plugin

FAMILIES = plugin.names("tenon.models")
ROOT = Path(__file__).parents[2]
CHILD = """
import hashlib, json, sys
import numpy as np
from fuzz import scratch, tiny_models
from tenon import ops
from tenon.core.files import ModelFiles
from tenon.models import load_model

family, seed, dtype, quantization = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4] or None

def load(seed):
    directory = tiny_models.directory(family, np.random.default_rng(seed))
    files = ModelFiles("hf", (directory / "model.safetensors",), "m", directory)
    return load_model(files, dtype, quantization=quantization)

if sys.argv[5]:
    load(seed + 1)  # and leave its weights behind in memory that is free again
model = load(seed)
digest, seen, todo, counts = hashlib.sha256(), set(), [model], [0, 0]
while todo:
    thing = todo.pop()
    if id(thing) in seen:
        continue
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        if thing.dtype.kind == "f":
            assert np.isfinite(thing).all()
        digest.update(np.ascontiguousarray(thing).tobytes())
        counts[0] += 1
    elif type(thing).__name__ == "PackedLinear":
        digest.update(ops.packed_bytes(thing).tobytes())
        counts[1] += 1
    elif isinstance(thing, (list, tuple)):
        todo += thing
    elif isinstance(thing, dict):
        todo += thing.values()
    elif type(thing).__module__.startswith("tenon.") and hasattr(thing, "__dict__"):
        todo += vars(thing).values()
print(json.dumps([digest.hexdigest(), counts]))
"""


def load(family: str, seed: int, poison: int, dtype: str, quantization: str) -> str:
    environment = os.environ | {"MALLOC_PERTURB_": str(poison), "MALLOC_MMAP_THRESHOLD_": str(1 << 30)}
    run = subprocess.run(
        [sys.executable, "-c", CHILD, family, str(seed), dtype, quantization, "again" if poison & 1 else ""],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="MALLOC_PERTURB_ is glibc's")
@pytest.mark.parametrize(
    ("family", "dtype", "quantization"),
    [
        *((family, "bfloat16", "") for family in FAMILIES),
        ("llama", "float32", ""),
        ("bert", "float32", ""),
        ("llama", "bfloat16", "int8"),
    ],
)
def test_nothing_is_left_unwritten(family, dtype, quantization, seed):
    if cpu.support() is not None and quantization:
        pytest.skip("needs the native kernels")
    first, second = (load(family, seed, poison, dtype, quantization) for poison in (0xFF, 0xAA))
    assert first == second
    assert '", [0, ' not in first, "nothing was compared"
