"""What malformed model files cost: time and memory until each is refused (goal G8: two seconds, 1 GiB).

    python bench/reliability/files.py

Every hostile input of the targets that read model files, and files that are large where that hurts most, is
read in a process that may map 1 GiB. Printed are the slowest and the process's highest resident set; any
exception but a typed one, or a process that dies, fails.
"""

from __future__ import annotations

import itertools
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from fuzz import session  # noqa: E402
from tests.formats import large  # noqa: E402

TARGETS = (
    "gguf",
    "gguf_model",
    "gguf_tokenizer",
    "safetensors",
    "safetensors_index",
    "config_json",
    "packed",
)
TARGETS += ("tokenizer_json", "sentence_piece")
SECONDS, BYTES = 2.0, 1 << 30


def child(name: str) -> None:
    target = session.load(name)
    inputs = target.seeds() | target.__dict__.get("MALFORMED", {})
    inputs |= {f"kept {i}": data for i, data in enumerate(session.kept(name))}
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, resource.RLIM_INFINITY))
    slowest, count, refused = (0.0, ""), 0, 0
    for label, data in itertools.chain(inputs.items(), large.files(name)):
        count += 1
        begin = time.process_time()
        try:
            target.run(data)
        except target.EXPECTED:
            refused += 1
        slowest = max(slowest, (time.process_time() - begin, label))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([count, refused, *slowest, peak]))


def main() -> int:
    print(f"goal G8: a typed error within {SECONDS:g} s and 1 GiB")
    print(f"{'files':18} {'inputs':>7} {'refused':>8} {'slowest':>9}   {'':32} {'peak':>9}")
    passed = True
    for name in TARGETS:
        command = [sys.executable, __file__, name]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if run.returncode:
            print(f"{name:18} FAILED: {run.stderr.strip().splitlines()[-1]}")
            passed = False
            continue
        count, refused, seconds, label, peak = json.loads(run.stdout)
        good = seconds <= SECONDS
        passed &= good
        print(
            f"{name:18} {count:7} {refused:8} {seconds:7.2f} s   {label[:32]:32} {peak:6.0f} MiB"
            f"{'' if good else '  TOO SLOW'}"
        )
    print("pass" if passed else "FAIL")
    return int(not passed)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(sys.argv[1])
    else:
        sys.exit(main())
