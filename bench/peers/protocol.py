"""How bench/compare.py talks to an engine that runs in a process, and a virtual environment, of its own.

The process reads one JSON object per line, {"input_len": I, "output_len": O}, runs one request of random
token ids with exactly that many output tokens, and answers {"prefill_s": time to the first token,
"decode_s": time of the O - 1 tokens after it}. Its first line says {"engine": name, "version": version}.
This file needs the standard library only: it is run by the interpreters of the peers.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable
from typing import Any


def prompt(input_len: int, vocab_size: int, seed: int) -> list[int]:
    """Token ids above the special ones, different for each seed, so that no engine can reuse a prefix."""
    draw = random.Random(seed)
    return [draw.randrange(256, vocab_size) for _ in range(input_len)]


def serve(load: Callable[[], tuple[dict[str, Any], Callable[[int, int, int], tuple[float, float]]]]) -> None:
    """`load` gives what to announce, and measure(input_len, output_len, seed) -> (prefill_s, decode_s)."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to standard error
    about, measure = load()
    print(json.dumps(about), file=answers, flush=True)
    for seed, line in enumerate(sys.stdin):
        ask = json.loads(line)
        prefill_s, decode_s = measure(ask["input_len"], ask["output_len"], seed)
        print(json.dumps({"prefill_s": prefill_s, "decode_s": decode_s}), file=answers, flush=True)
