"""JSON schemas, regular expressions, choices, Lark and EBNF by llguidance (guidance-ai/llguidance).

Its lexer and parser stop by themselves at the limits below, which bound time and memory of compiling and of
every single mask.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from typing import Any

import numpy as np

from tenon.core.structured import StructuredOutputs
from tenon.grammar.matcher import GrammarError
from tenon.grammar.schema import SPACES, without_options
from tenon.grammar.vocabulary import Vocabulary

_NO_OUTPUT = "no output can satisfy the grammar"
_EBNF = re.compile(r"^[ \t]*[\w-]+[ \t]*::=", re.MULTILINE)
_LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 100_000,
    "step_max_items": 50_000,
    "max_items_in_row": 2_000,
    "max_lexer_states": 50_000,
    "max_grammar_size": 500_000,
    "verbose_errors": False,
}


def support(outputs: StructuredOutputs) -> str | None:
    if importlib.util.find_spec("llguidance") is None:
        return "llguidance is not installed: pip install llguidance"
    if outputs.kind == "structural_tag" and "structures" not in _object(outputs):
        return "it reads structural tags with structures and triggers only"
    return None


def load(vocabulary: Vocabulary) -> None:
    _tokenizer(vocabulary)


def compile(outputs: StructuredOutputs, vocabulary: Vocabulary) -> LlgProgram:
    import llguidance

    limits = llguidance.LLParserLimits(**_LIMITS)
    matcher = llguidance.LLMatcher(_tokenizer(vocabulary), grammar_text(outputs), log_level=0, limits=limits)
    _check(matcher)
    matcher.compute_bitmask()  # shows what building it did not
    _check(matcher)
    if matcher.is_stopped() and not matcher.is_accepting():
        raise GrammarError(_NO_OUTPUT)
    return LlgProgram(matcher, outputs)


def grammar_text(outputs: StructuredOutputs) -> str:
    """The constraint in llguidance's own terms. Raises GrammarError."""
    import llguidance

    matcher: Any = llguidance.LLMatcher
    match outputs.kind:
        case "json" | "json_object":
            assert outputs.json_object or isinstance(outputs.json, dict)
            schema = without_options(outputs.json) if isinstance(outputs.json, dict) else {"type": "object"}
            spaces = (
                {"whitespace_flexible": False}
                if outputs.disable_any_whitespace
                else {"whitespace_pattern": SPACES}
            )
            return _or_error(lambda: matcher.grammar_from_json_schema(json.dumps(schema), overrides=spaces))
        case "regex":
            # \d, \w and \s are ASCII's, which every reader of the output agrees on.
            return matcher.grammar_from_regex(_or_error(lambda: _ascii(outputs.regex or "")))
        case "choice":
            return "start: " + " | ".join(json.dumps(text) for text in outputs.choice or ())
        case "structural_tag":
            return _tags(_object(outputs))
    text = outputs.grammar or ""
    if _EBNF.search(text):
        from llguidance.gbnf_to_lark import gbnf_to_lark

        return _or_error(lambda: gbnf_to_lark(text))
    return text


class LlgProgram:
    """`prototype` is never advanced: matchers are copies of it."""

    def __init__(self, prototype: Any, outputs: StructuredOutputs) -> None:
        self._prototype = prototype
        self.num_bytes = 200_000 + 300 * len(outputs.source())  # as measured on large schemas

    def matcher(self) -> LlgMatcher:
        return LlgMatcher(self._prototype.deep_copy())


class LlgMatcher:
    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def fill_mask(self, mask_W: np.ndarray) -> None:
        self._matcher.unsafe_compute_mask_ptr(mask_W.ctypes.data, mask_W.nbytes)
        if self._matcher.is_error():
            _check(self._matcher)

    def accept(self, token: int) -> bool:
        return self._matcher.try_consume_tokens([token]) == 1

    def rollback(self, count: int) -> None:
        if count and not self._matcher.rollback(count):
            _check(self._matcher)

    @property
    def complete(self) -> bool:
        return self._matcher.is_stopped()


class _Wrapper:
    """What llguidance asks of a tokenizer."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.eos_token_id = vocabulary.eos_ids[0]
        self.tokens = vocabulary.tokens
        self.special_token_ids = sorted(vocabulary.special_ids | set(vocabulary.eos_ids))
        self._encode = vocabulary.encode

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)


@functools.lru_cache(maxsize=4)
def _tokenizer(vocabulary: Vocabulary) -> Any:
    import llguidance

    if not vocabulary.eos_ids:
        raise GrammarError("the model has no end-of-text token, which a grammar needs")
    wrapper = llguidance.TokenizerWrapper(_Wrapper(vocabulary))
    return llguidance.LLTokenizer(wrapper, n_vocab=vocabulary.size, eos_token=list(vocabulary.eos_ids))


def _check(matcher: Any) -> None:
    if matcher.is_error():
        raise GrammarError(_reason(matcher.get_error()) or "it failed")


def _reason(error: str) -> str:
    reason = error.replace("<non-verbose/>", "").strip()
    return _NO_OUTPUT if reason.startswith("NoExtension") else reason[:1000]


def _or_error(make: Any) -> str:
    try:
        return make()
    except Exception as error:  # whatever a converter raises, it is about the grammar
        raise GrammarError(str(error)[:1000]) from None


def _ascii(regex: str) -> str:
    import llguidance

    return llguidance.regex_to_lark(regex, "dws")


def _object(outputs: StructuredOutputs) -> dict[str, Any]:
    assert isinstance(outputs.structural_tag, dict)
    return outputs.structural_tag


def _tags(tag: dict[str, Any]) -> str:
    """The first form of structural tags: `{"structures": [{begin, schema, end}], "triggers": [...]}`."""
    import llguidance

    triggers, structures = tag.get("triggers"), tag.get("structures")
    if not isinstance(triggers, list) or not isinstance(structures, list) or not structures:
        raise GrammarError("a structural tag needs lists of structures and triggers")
    tags = []
    for structure in structures:
        if not isinstance(structure, dict) or not isinstance(structure.get("begin"), str):
            raise GrammarError("a structure needs begin, schema and end")
        begin, end = structure["begin"], structure.get("end", "")
        trigger = next((t for t in triggers if isinstance(t, str) and t and begin.startswith(t)), None)
        if trigger is None or not isinstance(end, str):
            raise GrammarError(f"no trigger is the beginning of {begin[:100]!r}")
        schema = structure.get("schema") or {}
        tags.append(llguidance.StructTag(trigger=trigger, begin=begin, grammar=schema, end=end))
    return llguidance.StructTag.to_grammar(tags, assume_special=False)
