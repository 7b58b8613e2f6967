"""OpenVINO GenAI's LLMPipeline on a GGUF file: MODEL.gguf THREADS. See protocol.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai
from protocol import prompt, serve


def load() -> tuple[dict[str, Any], Callable[[int, int, int], tuple[float, float]]]:
    path, threads = sys.argv[1], int(sys.argv[2])
    pipeline = genai.LLMPipeline(path, "CPU", INFERENCE_NUM_THREADS=threads)
    vocab_size = len(pipeline.get_tokenizer().get_vocab())

    def measure(input_len: int, output_len: int, seed: int) -> tuple[float, float]:
        ids = np.array([prompt(input_len, vocab_size, seed)], np.int64)
        config = genai.GenerationConfig(
            max_new_tokens=output_len, min_new_tokens=output_len, ignore_eos=True, do_sample=False
        )
        inputs = genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids)))
        metrics = pipeline.generate(inputs, config).perf_metrics
        first = metrics.get_ttft().mean / 1e3
        return first, metrics.get_tpot().mean / 1e3 * (output_len - 1)

    return {"engine": "OpenVINO GenAI", "version": genai.__version__}, measure


serve(load)
