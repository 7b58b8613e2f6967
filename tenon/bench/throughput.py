"""Many requests at once through `LLM`: what an offline job sees, text included."""

from __future__ import annotations

import time
from typing import Any

from tenon.bench.prompts import PromptShape, token_prompts
from tenon.config import EngineArgs
from tenon.core.sampling import SamplingParams


def measure(args: EngineArgs, shape: PromptShape, output_len: int, num_prompts: int) -> dict[str, Any]:
    """Tokens and requests per second. Raises TenonError."""
    import dataclasses

    from tenon.llm import LLM

    llm = LLM(**{field.name: getattr(args, field.name) for field in dataclasses.fields(args)})
    vocab_size = llm.get_tokenizer().vocab_size
    params = SamplingParams(temperature=0.0, max_tokens=output_len, ignore_eos=True)
    prompts = token_prompts(num_prompts + 1, shape, vocab_size, seed=0)
    llm.generate(prompts.pop(), params, use_tqdm=False)  # warms up
    start = time.perf_counter()
    outputs = llm.generate(prompts, params)
    duration = time.perf_counter() - start
    prompt_tokens = sum(len(output.prompt_token_ids) for output in outputs)
    output_tokens = sum(len(choice.token_ids) for output in outputs for choice in output.outputs)
    return {
        "requests": len(outputs),
        "prompt_tokens": prompt_tokens,
        "cached_tokens": sum(output.num_cached_tokens for output in outputs),
        "output_tokens": output_tokens,
        "duration_s": duration,
        "requests_per_s": len(outputs) / duration,
        "output_tokens_per_s": output_tokens / duration,
        "total_tokens_per_s": (prompt_tokens + output_tokens) / duration,
    }
