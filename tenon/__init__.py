"""tenon: an LLM inference and serving engine.

    from tenon import LLM, SamplingParams

What these need is imported when they are first used, so that `import tenon` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenon.core.outputs import CompletionOutput, Logprob, RequestOutput
    from tenon.core.sampling import SamplingParams
    from tenon.core.structured import StructuredOutputs
    from tenon.llm import LLM

__all__ = ["LLM", "CompletionOutput", "Logprob", "RequestOutput", "SamplingParams", "StructuredOutputs"]

_HOMES = {
    "LLM": "tenon.llm",
    "SamplingParams": "tenon.core.sampling",
    "StructuredOutputs": "tenon.core.structured",
    "RequestOutput": "tenon.core.outputs",
    "CompletionOutput": "tenon.core.outputs",
    "Logprob": "tenon.core.outputs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tenon' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
