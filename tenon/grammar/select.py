"""Which backend compiles a constraint: the first that can, with the reasons of those that cannot."""

from __future__ import annotations

import importlib

from tenon.core.structured import StructuredOutputs
from tenon.grammar.matcher import Backend, GrammarError, Program
from tenon.grammar.vocabulary import Vocabulary

# In order of preference. llguidance refuses what it does not enforce.
BACKENDS = ("llguidance",)


def load(name: str) -> Backend:
    return importlib.import_module(f"tenon.grammar.{name}")  # type: ignore[return-value]


def compile(outputs: StructuredOutputs, vocabulary: Vocabulary) -> Program:
    """Raises GrammarError with the reason of each backend."""
    reasons: dict[str, str] = {}
    for name in BACKENDS:
        backend = load(name)
        if (reason := backend.support(outputs)) is None:
            try:
                return backend.compile(outputs, vocabulary)
            except GrammarError as error:
                reason = str(error)
        reasons[name] = reason
    raise GrammarError("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))
