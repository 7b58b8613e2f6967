"""What the targets of grammars share: compile a constraint as the engine does, and follow it a little."""

from __future__ import annotations

import numpy as np

from tenon.core.structured import StructuredOutputs
from tenon.grammar import select
from tests.grammar import vocabularies

VOCABULARY = vocabularies.make(special=("<|tool|>",))
STEPS = 12


def follow(outputs: StructuredOutputs) -> None:
    """Raises InvalidRequest, or finds that nothing may come next. A matcher that takes no token although one
    was allowed has run out of its limits, and must say so when it is asked again."""
    matcher = select.compile(outputs, VOCABULARY).matcher()
    mask_W = np.zeros(VOCABULARY.words, np.int32)
    for step in range(STEPS):
        matcher.fill_mask(mask_W)
        bits = np.unpackbits(mask_W.view(np.uint8), bitorder="little")
        allowed = np.flatnonzero(bits[: VOCABULARY.size]).tolist()
        assert allowed, "no token is allowed, not even the end"
        token = allowed[step * 7919 % len(allowed)]
        if token == vocabularies.EOS:
            return
        if not matcher.accept(token):
            matcher.fill_mask(mask_W)
            raise AssertionError("an allowed token was not taken, without a reason")
