"""What a grammar costs per token: the same batch with and without one, in turns, on the default model.

    python -m bench.structured [--model MODEL] [--batch 16] [--tokens 128] [--rounds 9]

Prints what the steps of both took. On a machine that is shared, the fastest ones tell the most: they were the
least disturbed.
"""

from __future__ import annotations

import argparse
import time

from tenon import LLM, SamplingParams, StructuredOutputs
from tenon.config import DEFAULT_MODEL

# Never complete before the last token: what is measured is the same number of tokens.
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 4},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "kind": {"enum": ["red", "green", "blue"]},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}
SCHEMA = {"type": "array", "items": PERSON, "minItems": 500}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    llm = LLM(args.model, max_model_len=1024, kv_cache_memory="512MiB", num_threads=args.threads)
    prompts = [f"A JSON list of {i} people: " for i in range(args.batch)]
    common = {"max_tokens": args.tokens, "temperature": 1.0, "seed": 1}
    free = SamplingParams(ignore_eos=True, **common)
    held = SamplingParams(structured_outputs=StructuredOutputs(json=SCHEMA), **common)

    steps: list[float] = []
    cpu: list[float] = []
    step = llm._client.step

    def timed():
        begin, cpu_begin = time.perf_counter(), time.process_time()
        outputs = step()
        steps.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - cpu_begin)
        return outputs

    llm._client.step = timed  # type: ignore[method-assign]
    fills: list[float] = []
    masker = llm._client.engine.runner._masker
    fill = masker._fill

    def timed_fill(guided):
        begin = time.thread_time()
        masks = fill(guided)
        fills.append(time.thread_time() - begin)
        return masks

    masker._fill = timed_fill  # type: ignore[method-assign]

    def decode_steps(params: SamplingParams) -> list[tuple[float, float]]:
        steps.clear()
        cpu.clear()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        assert all(len(output.outputs[0].token_ids) == args.tokens for output in outputs)
        return list(zip(steps, cpu, strict=True))[-args.tokens + 2 :]

    decode_steps(free)
    decode_steps(held)
    without: list[tuple[float, float]] = []
    having: list[tuple[float, float]] = []
    for _ in range(args.rounds):
        without += decode_steps(free)
        having += decode_steps(held)
    print(f"batch {args.batch}, {args.rounds} rounds of {args.tokens} tokens, {args.model}; ms a step")
    for kind, what in enumerate(("time", "CPU time of all threads")):
        for name, share in (("fastest", 0.0), ("5th percentile", 0.05), ("quartile", 0.25), ("median", 0.5)):
            a, b = (
                sorted(times[kind] for times in steps)[int(share * len(steps))] * 1e3
                for steps in (without, having)
            )
            print(f"{what}, {name}: without {a:.3f}, with {b:.3f}: {100 * (b / a - 1):+.1f} %")
    fills.sort()
    median, most = 1e3 * fills[len(fills) // 2], 1e3 * fills[-1]
    print(f"masks, beside the forward pass: median {median:.3f} ms of CPU a step, most {most:.3f} ms")


if __name__ == "__main__":
    main()
