"""What a grammar backend offers: programs, compiled once, and matchers, which follow one output each."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from tenon.core.structured import StructuredOutputs
from tenon.errors import InvalidRequest
from tenon.grammar.vocabulary import Vocabulary


class Matcher(Protocol):
    """Follows one output. For one thread at a time."""

    def fill_mask(self, mask_W: np.ndarray) -> None:
        """Set the bits of the tokens that may come next (int32, lowest bit first), EOS among them where the
        output may end. Raises GrammarError."""

    def accept(self, token: int) -> bool:
        """Take a token; False, and nothing has changed, if it may not come here."""

    def rollback(self, count: int) -> None:
        """Take the last `count` accepted tokens back."""

    @property
    def complete(self) -> bool:
        """Nothing but the end may come next."""


class Program(Protocol):
    """A compiled grammar, shared by all that use it."""

    num_bytes: int  # about

    def matcher(self) -> Matcher: ...


class Backend(Protocol):
    """A module of this package."""

    def support(self, outputs: StructuredOutputs) -> str | None:
        """Why this backend cannot be asked for this; None if it can."""

    def load(self, vocabulary: Vocabulary) -> None:
        """Import what compiling needs, and put the vocabulary in its terms; it may take long."""

    def compile(self, outputs: StructuredOutputs, vocabulary: Vocabulary) -> Program:
        """Raises GrammarError for what cannot be compiled, with the reason."""


class GrammarError(InvalidRequest):
    """A grammar that is wrong, not supported, or too much."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "structured_outputs", "invalid_grammar")
