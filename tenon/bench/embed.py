"""Embeddings through `LLM`: texts a second, some at once."""

from __future__ import annotations

import time
from typing import Any

from tenon.bench.prompts import PromptShape, token_prompts
from tenon.bench.stats import median
from tenon.config import EngineArgs


def measure(args: EngineArgs, input_len: int, batch_size: int, num_iters: int) -> dict[str, Any]:
    """Medians over `num_iters` batches of random tokens. Raises TenonError."""
    import dataclasses

    from tenon.llm import LLM

    llm = LLM(**{field.name: getattr(args, field.name) for field in dataclasses.fields(args)})
    shape = PromptShape(input_len)
    prompts = token_prompts(batch_size * (num_iters + 1), shape, llm.get_tokenizer().vocab_size, seed=0)
    times = []
    for i in range(num_iters + 1):
        batch = prompts[i * batch_size : (i + 1) * batch_size]
        begin = time.perf_counter()
        llm.encode(batch)
        times.append(time.perf_counter() - begin)
    seconds = median(times[1:])  # the first warms up
    return {
        "batch_s": seconds,
        "best_batch_s": min(times[1:]),
        "texts_per_s": batch_size / seconds,
        "tokens_per_s": batch_size * input_len / seconds,
    }
