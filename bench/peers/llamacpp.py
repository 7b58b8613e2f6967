"""llama.cpp through llama-cpp-python: MODEL.gguf THREADS. See protocol.py."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import llama_cpp
from protocol import prompt, serve


def load() -> tuple[dict[str, Any], Callable[[int, int, int], tuple[float, float]]]:
    path, threads = sys.argv[1], int(sys.argv[2])
    model = llama_cpp.Llama(
        path,
        n_ctx=4096,
        n_batch=2048,
        n_ubatch=512,
        n_threads=threads,
        n_threads_batch=threads,
        verbose=False,
    )

    def measure(input_len: int, output_len: int, seed: int) -> tuple[float, float]:
        ids = prompt(input_len, model.n_vocab(), seed)
        model.reset()
        model._ctx.kv_cache_clear()
        start = time.perf_counter()
        model.eval(ids)
        token = model.sample(temp=0.0)
        first = time.perf_counter()
        for _ in range(output_len - 1):
            model.eval([token])
            token = model.sample(temp=0.0)
        return first - start, time.perf_counter() - first

    return {"engine": "llama.cpp", "version": f"llama-cpp-python {llama_cpp.__version__}"}, measure


serve(load)
