"""What loading takes at its peak, and what it leaves behind, each in a process of its own."""

import json
import subprocess
import sys

import pytest

from tenon.bench.make_model import make_model
from tenon.core.files import ModelFiles
from tenon.kernels import cpu
from tenon.util import plugin

if reason := cpu.support():
    pytest.skip(reason, allow_module_level=True)

# Prints kilobytes of /proc/self/status before and after loading, and the bytes of packed weights.
PROBE = """
import gc, json, sys
from tenon.config import EngineArgs
from tenon.engine.loader import load_engine
from tenon.kernels.cpu import _native

def status():
    lines = (line.split() for line in open("/proc/self/status"))
    return {words[0][:-1]: int(words[1]) for words in lines if words[0] in ("VmHWM:", "VmRSS:")}

config = EngineArgs(model=sys.argv[1], quantization=sys.argv[2] or None, max_model_len=128,
                    kv_cache_memory="32MiB").resolve()
before = status()
engine = load_engine(config)
holders = [vars(one) for one in gc.get_objects() if str(type(one).__module__).startswith("tenon.layers")
           and hasattr(one, "__dict__")]
packed = {id(x): x for holder in holders for x in holder.values() if isinstance(x, _native.PackedLinear)}
print(json.dumps({"before": before, "after": status(), "weights": sum(x.nbytes for x in packed.values())}))
"""
# The head is a third of the model and comes last: the worst case for a second copy of a tensor.
WIDE = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 4, "num_attention_heads": 16}


@pytest.mark.parametrize(
    ("format", "dtype", "quantization"),
    [("gguf", "q4_1", ""), ("safetensors", "bf16", ""), ("safetensors", "bf16", "int4")],
)
def test_the_peak_is_what_remains(format, dtype, quantization, tmp_path, smollm2_gguf, monkeypatch):
    llama = plugin.load("tenon.models", "llama")
    monkeypatch.setitem(llama.SIZES, "wide", {**llama.TINY, **WIDE})
    path = tmp_path / ("m.gguf" if format == "gguf" else "m")
    tokenizer = ModelFiles("gguf", (smollm2_gguf,), "smollm2", smollm2_gguf.parent)
    make_model("llama", "wide", path, tokenizer=tokenizer, format=format, dtype=dtype)
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(path), quantization], capture_output=True, text=True, check=True
    )
    seen = json.loads(done.stdout)
    weights = seen["weights"] / 1024
    final, peak = seen["after"]["VmRSS"], seen["after"]["VmHWM"]
    print(f"weights {weights:.0f} KB, before {seen['before']['VmRSS']}, final {final}, peak {peak}")
    assert weights > 60_000
    assert peak <= 1.15 * final
    assert final - weights < 200_000  # of the 400 MB that a server may have; its front end is not here
