"""Which backend compiles a constraint: the first that can, with the reasons of those that cannot."""

from __future__ import annotations

import importlib

from tenon.core.structured import StructuredOutputs
from tenon.grammar.matcher import Backend, GrammarError, Program
from tenon.grammar.vocabulary import Vocabulary

# In order of preference. llguidance refuses what it does not enforce, and comes with tenon.
BACKENDS = ("llguidance", "xgrammar")


def backend(name: str) -> Backend:
    return importlib.import_module(f"tenon.grammar.{name}")  # type: ignore[return-value]


def prepare(outputs: StructuredOutputs, vocabulary: Vocabulary) -> None:
    """Have ready what compiling needs, which is not the grammar's time. Raises GrammarError."""
    for name in BACKENDS:
        if backend(name).support(outputs) is None:
            backend(name).load(vocabulary)
            return


def compile(outputs: StructuredOutputs, vocabulary: Vocabulary) -> Program:
    """Raises GrammarError: what those backends say that could be asked, or why none could."""
    declined: dict[str, str] = {}
    failed: dict[str, str] = {}
    for name in BACKENDS:
        one = backend(name)
        if (reason := one.support(outputs)) is not None:
            declined[name] = reason
            continue
        try:
            return one.compile(outputs, vocabulary)
        except GrammarError as error:
            failed[name] = str(error)
    raise GrammarError("; ".join(f"{name}: {reason}" for name, reason in (failed or declined).items()))
