"""A chat's answer as a constraint: what it must match, in the output format of the model that writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tenon.core.structured import StructuredOutputs, Thinking
from tenon.grammar.calls import Wanted, answer_grammar, call_grammar
from tenon.parse.format import Format
from tenon.parse.thinking import switched_off, thinking_of


def in_format(
    table: Format,
    outputs: StructuredOutputs | None,
    calls: Wanted | None,
    *,
    encode: Callable[[str], list[int]],
    special: Mapping[str, int],
    tail: str,
    prefill: str = "",
) -> tuple[StructuredOutputs | None, Thinking | None]:
    """What to ask the engine for. `calls`: what tool calls are held to; `encode` makes token ids of markers,
    `special` are the ids of special tokens by their text; `tail` is how the prompt ends, `prefill` what of
    the answer it holds. Raises Inexpressible."""
    if calls is not None:
        outputs = StructuredOutputs(grammar=call_grammar(table, calls, special))
    elif outputs is not None and table.channels is not None:
        outputs = StructuredOutputs(grammar=answer_grammar(table.channels, outputs, special))
    thinking = thinking_of(table, encode, tail, prefill)
    if thinking is not None and outputs is not None:
        if table.channels is not None:  # the grammar says what follows the thinking
            thinking.in_grammar = True
            thinking.closing = [encode(closer) for _, closer in thinking.pairs]
        elif switched_off(table, tail):
            thinking.may_open = False
    return outputs, thinking
