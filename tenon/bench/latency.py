"""One batch of equal requests in an engine of this process: prefill and decode speed, and how near the roofs.

The engine is stepped directly, without tokenizer, HTTP or another process, so the figures are those of
scheduling, kernels and sampling.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tenon.bench import profile, roof
from tenon.bench.own import OwnTime, Steps
from tenon.bench.prompts import PromptShape, token_prompts
from tenon.bench.stats import median
from tenon.config import EngineConfig
from tenon.core.messages import AddRequest, Outputs, ToEngine
from tenon.core.sampling import SamplingParams
from tenon.engine.client import InProcessClient
from tenon.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Shape:
    """`batch_size` requests at once, each of `input_len` prompt and `output_len` output tokens."""

    input_len: int
    output_len: int
    batch_size: int


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds from the start: when each request had its first token, and when the last had its last."""

    first: list[float]
    end: float
    decoded: int  # tokens that came after every request had its first

    @property
    def prefill(self) -> float:
        return max(self.first)

    @property
    def decode(self) -> float:
        return self.end - self.prefill


def measure(
    config: EngineConfig,
    shape: Shape,
    iterations: int,
    progress: Callable[[], None] = lambda: None,
    profiled: bool = False,
    cached: bool = False,
) -> dict[str, Any]:
    """The figures of `iterations` runs (medians), after one that warms up. Raises ConfigError, TenonError.

    `profiled` adds `profile`: time per kind of op in one more run, prefill and decode apart. `cached` adds
    `cached_ttft_ms`: each run's prompts once more, which are in the prefix cache then.
    """
    client = InProcessClient(config)
    start = time.perf_counter()
    info = client.load()
    load_s = time.perf_counter() - start
    if shape.input_len + shape.output_len > info.max_model_len:
        raise ConfigError(
            f"--input-len {shape.input_len} plus --output-len {shape.output_len} is more than this model's "
            f"max_model_len of {info.max_model_len}"
        )
    weights = roof.Weights.of(client.engine.runner.model, config.block_size)
    step_bytes = max(weights.read_per_step, 1 << 20)
    before = roof.probe(step_bytes)
    runs, again, own = [], [], []
    with OwnTime(client) as timed:
        for number in range(iterations + 1):
            measured = run(timed, shape, weights.vocab_size, number, timed.begin)
            if number:
                runs.append(measured)
                own.append(timed.seconds)
            if cached:
                once_more = run(timed, replace(shape, output_len=1), weights.vocab_size, number)
                again += once_more.first if number else []
            progress()
    phases = _profile(client, shape, weights.vocab_size, iterations + 1) if profiled else []
    roofs = before.best(roof.probe(step_bytes))
    result = figures(shape, runs, roofs, weights)
    result["own_us_per_step"] = 1e6 * median([s for s in own if s is not None] or [math.nan])
    if cached:
        result["cached_ttft_ms"] = 1e3 * median(again)
        result["cached_speedup"] = result["ttft_ms"] / result["cached_ttft_ms"]
    if profiled:
        result["profile"] = {phase.name: profile.rows(phase, roofs) for phase in phases}
    return result | {"load_s": load_s, "engine": info.info}


def _profile(client: InProcessClient, shape: Shape, vocab_size: int, seed: int) -> list[profile.Phase]:
    """Profiles of one run's prefill and decode. Raises ConfigError where ops are not recorded."""
    passes = client.engine.runner.passes
    profiler = profile.Profiler(passes)
    with profiler:
        run(client, shape, vocab_size, seed, lambda: profiler.end_phase("prefill"))
        profiler.end_phase("decode")
    if not any(phase.ops for phase in profiler.phases):
        raise ConfigError(f"--profile needs a model whose ops are recorded; this one runs {passes.how}")
    return profiler.phases


def run(
    client: Steps,
    shape: Shape,
    vocab_size: int,
    seed: int,
    after_prefill: Callable[[], None] = lambda: None,
) -> Run:
    params = SamplingParams(
        temperature=0.0,
        max_tokens=shape.output_len,
        ignore_eos=True,
        seed=0,
        detokenize=False,
    )
    prompts = token_prompts(shape.batch_size, PromptShape(shape.input_len), vocab_size, seed)
    messages: list[ToEngine] = [
        AddRequest(request_id=f"{seed}-{i}", prompt_token_ids=prompt, params=params)
        for i, prompt in enumerate(prompts)
    ]
    return drain(client, messages, after_prefill)


def drain(client: Steps, messages: list[ToEngine], after_prefill: Callable[[], None] = lambda: None) -> Run:
    """Send requests and step until none is left; `after_prefill` is called when each has its first token."""
    first: dict[str, float] = {}
    count = 0
    at_prefill: int | None = None
    start = now = time.perf_counter()
    client.send(messages)
    while client.has_work:
        outputs: Outputs = client.step()
        now = time.perf_counter()
        for output in outputs.outputs:
            if output.error:
                raise ConfigError(f"a request failed: {output.error}")
            count += len(output.new_token_ids)
            if output.new_token_ids and output.request_id not in first:
                first[output.request_id] = now - start
        if at_prefill is None and len(first) == len(messages):
            at_prefill = count
            after_prefill()
    return Run(list(first.values()), now - start, count - (at_prefill or 0))


def figures(shape: Shape, runs: list[Run], roofs: roof.Roofs, weights: roof.Weights) -> dict[str, Any]:
    """Tokens per second, milliseconds, and fractions of the roofs."""
    prefill = median([run.prefill for run in runs])
    decode = median([run.decode / run.decoded for run in runs if run.decoded] or [0.0])
    prompt_tokens = shape.batch_size * shape.input_len
    step = decode * shape.batch_size  # seconds of one decode step of the whole batch
    context = shape.input_len + shape.output_len / 2
    request_bytes = context * weights.kv_bytes_per_token + weights.state_bytes
    step_bytes = weights.read_per_step + shape.batch_size * request_bytes
    return {
        "prefill_tokens_per_s": prompt_tokens / prefill,
        "decode_tokens_per_s": 1 / decode if decode else None,
        "ttft_ms": 1e3 * median([seconds for run in runs for seconds in run.first]),
        "tpot_ms": 1e3 * step if decode else None,
        "roof": {
            **roofs.figures(),
            "weight_bytes": weights.read_per_step,
            "kv_bytes_per_token": weights.kv_bytes_per_token,
            "state_bytes": weights.state_bytes,
            "matrix_parameters": weights.matrix_parameters,
            "decode_gb_per_s": step_bytes / step / 1e9 if step else None,
            "decode_fraction": step_bytes / step / roofs.bandwidth if step else None,
            "prefill_tflop_per_s": 2e-12 * weights.matrix_parameters * prompt_tokens / prefill,
            "prefill_fraction": weights.prefill_seconds(prompt_tokens, roofs) / prefill,
        },
    }
