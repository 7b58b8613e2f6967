"""Write docs/reference/sampling-params.md from `SamplingParams`. A test checks that it is current."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from tenon.core.sampling import (
    MAX_LOGIT_BIAS,
    MAX_LOGPROBS,
    MAX_N,
    MAX_STOP_CHARS,
    MAX_STOP_STRINGS,
    SamplingParams,
)

PATH = Path(__file__).parents[1] / "docs" / "reference" / "sampling-params.md"
HEAD = """# SamplingParams

Made from the code by `make docs`. A value out of its range raises `InvalidRequest`, with the field's name in
`.param`. How they are used: [offline](../offline.md).

| field | type | default | meaning |
|---|---|---|---|
"""

MEANINGS = {
    "n": f"answers for each prompt, up to {MAX_N}",
    "temperature": "0 takes the likeliest token; up to 100",
    "top_p": "only the smallest set of tokens with this probability, above 0; 1 is all",
    "top_k": "only the k likeliest tokens; 0 or -1 is all",
    "min_p": "only tokens with at least this share of the likeliest one's probability; 0 is all",
    "presence_penalty": "taken from the logit of every token in the output; -2 to 2",
    "frequency_penalty": "the same, times how often the token is there; -2 to 2",
    "repetition_penalty": "divides positive logits of tokens there have been, multiplies others; 0.01 to 100",
    "logit_bias": f"added to the logits of these token ids, -100 to 100; up to {MAX_LOGIT_BIAS} of them",
    "seed": "the same seed gives the same tokens; None: one is drawn, and the output tells it",
    "max_tokens": "longest output, in tokens; None: as long as the context allows",
    "min_tokens": "tokens before which nothing ends the output",
    "stop": f"the output ends before any of these: {MAX_STOP_STRINGS} of {MAX_STOP_CHARS} characters at most",
    "stop_token_ids": "the output ends at any of these, as at the model's own end of text",
    "include_stop_str_in_output": "leave the stop string in the text",
    "ignore_eos": "go on after the model's end of text",
    "logprobs": f"log-probabilities of the chosen token and this many more, up to {MAX_LOGPROBS}",
    "prompt_logprobs": "the same for the tokens of the prompt",
    "skip_special_tokens": "leave special tokens out of the text",
    "detokenize": "False: token ids only, no text",
    "structured_outputs": "what the output must look like: [structured output](../structured-output.md)",
    "thinking_token_budget": "most tokens of thinking; then it is closed",
    "thinking": "how the output marks its thinking; chat sets it from the model's output format",
}


def reference() -> str:
    """The page. Every field has a meaning, and every meaning a field."""
    fields = msgspec.structs.fields(SamplingParams)
    assert [field.name for field in fields] == list(MEANINGS), "MEANINGS must list the fields, in order"
    return HEAD + "".join(row(field) for field in fields)


def row(field: msgspec.structs.FieldInfo) -> str:
    kind = shown(field.type).replace("|", "\\|")
    return f"| `{field.name}` | `{kind}` | `{field.default!r}` | {MEANINGS[field.name]} |\n"


def shown(kind: Any) -> str:
    """A type as it is written in the source."""
    return kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)


if __name__ == "__main__":
    PATH.write_text(reference())
