"""tenon, the engine in this process: MODEL THREADS [ACTIVATIONS]. See protocol.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from protocol import serve

from tenon import collect_env
from tenon.bench import latency
from tenon.config import EngineArgs
from tenon.engine.client import InProcessClient


def load() -> tuple[dict[str, Any], Callable[[int, int, int], tuple[float, float]]]:
    path, threads, *activations = sys.argv[1:]
    engine = EngineArgs(
        model=path,
        num_threads=int(threads),
        enable_prefix_caching=False,
        max_model_len=4096,
        **({"activations": activations[0]} if activations else {}),
    )
    client = InProcessClient(engine.resolve())
    client.load()
    vocab_size = client.engine.runner.model.spec.vocab_size

    def measure(input_len: int, output_len: int, seed: int) -> tuple[float, float]:
        run = latency.run(client, latency.Shape(input_len, output_len, 1), vocab_size, seed)
        return run.prefill, run.decode

    return {"engine": " ".join(["tenon", *activations]), "version": collect_env.commit()}, measure


serve(load)
