"""Writes tests/fixtures/smollm2_reference.json: what another implementation makes of the default model.

transformers (with accelerate installed) reads the GGUF file itself, dequantises its weights exactly and
computes in float32. For each text in tests/fixtures/texts: mean negative log-likelihood of its tokens
(teacher-forced, nats). For each prompt: its greedy continuation, and each lead over the next best.

    python scripts/make_reference_fixtures.py SmolLM2-135M-Instruct.Q4_1.gguf      (two minutes)
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from tenon.core.files import ModelFiles
from tenon.text.load import load_tokenizer
from tenon.text.tokenizer import Tokenizer

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures"
MAX_TOKENS = 2000
CONTINUATION = 40
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):\n",
    "Once upon a time, in a village by the sea, there lived",
    "1, 2, 3, 4, 5, 6, 7, 8,",
    CHAT.format("Why is the sky blue? Answer in two sentences."),
    CHAT.format("Write a Python function that reverses a string."),
]


def main(path: Path) -> None:
    tokenizer = load_tokenizer(ModelFiles("gguf", (path,), path.stem, path.parent))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    texts = sorted((FIXTURES / "texts").glob("*.txt"))
    reference = {
        "made_by": "scripts/make_reference_fixtures.py",
        "model_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "transformers": transformers.__version__,
        "texts": {text.name: likelihood(model, tokenizer, text.read_text()) for text in texts},
        "greedy": [continuation(model, tokenizer, prompt) for prompt in PROMPTS],
    }
    target = FIXTURES / "smollm2_reference.json"
    target.write_text(json.dumps(reference, separators=(",", ":")).replace('{"', '\n{"') + "\n")
    for name, figures in reference["texts"].items():
        print(f"{name}: {len(figures['token_ids'])} tokens, {figures['mean_nll']:.6f} nats")


@torch.inference_mode()
def likelihood(model: Any, tokenizer: Tokenizer, text: str) -> dict[str, Any]:
    """Mean of -log p(token | tokens before it), over all tokens but the first."""
    ids = tokenizer.encode(text, add_special_tokens=False)[:MAX_TOKENS]
    logits = model(torch.tensor([ids])).logits[0, :-1]
    nll = torch.nn.functional.cross_entropy(logits.double(), torch.tensor(ids[1:]))
    return {"token_ids": ids, "mean_nll": round(nll.item(), 8)}


@torch.inference_mode()
def continuation(model: Any, tokenizer: Tokenizer, prompt: str) -> dict[str, Any]:
    """The most likely token, again and again; `margins` are the leads over the second in nats."""
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    made: list[int] = []
    margins: list[float] = []
    cache, feed = None, ids
    for _ in range(CONTINUATION):
        out = model(torch.tensor([feed]), past_key_values=cache, use_cache=True)
        best, second = out.logits[0, -1].topk(2).values.tolist()
        made.append(int(out.logits[0, -1].argmax()))
        margins.append(round(best - second, 4))
        cache, feed = out.past_key_values, made[-1:]
    return {"prompt": prompt, "prompt_token_ids": ids, "token_ids": made, "margins": margins}


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
