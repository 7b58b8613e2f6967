"""Structural tags of the second form by xgrammar (mlc-ai/xgrammar), which llguidance does not read.

An extra of its own (`pip install tenon[xgrammar]`): its package brings torch. It passes over keywords of JSON
schemas that it does not enforce, so only schemas of those that it does enforce reach it.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from tenon.core.structured import StructuredOutputs
from tenon.grammar.matcher import GrammarError
from tenon.grammar.vocabulary import Vocabulary

# Of JSON schemas: what xgrammar enforces, and what asks for nothing.
_ENFORCED = {"type", "properties", "required", "additionalProperties", "items", "minItems", "maxItems"}
_ENFORCED |= {"enum", "const", "anyOf", "$ref", "$defs", "definitions", "minLength", "maxLength", "pattern"}
_SILENT = {"title", "description", "default", "examples", "deprecated", "$schema", "$comment", "$id"}
_NAMED = {"properties", "$defs", "definitions"}  # keywords whose members have names of their own
# What xgrammar's messages begin with: a time and a line of its source.
_WHERE = re.compile(r"^\[[^]]*\] \S+: (Check failed: .* is false: )?")
_VALUES = {"enum", "const", "default", "examples", "required", "type"}  # keywords that hold no schemas


def support(outputs: StructuredOutputs) -> str | None:
    if outputs.kind != "structural_tag":
        return "it is asked for structural tags only"
    if importlib.util.find_spec("xgrammar") is None:
        return "it is not installed: pip install tenon[xgrammar]"
    return None


def load(vocabulary: Vocabulary) -> None:
    """Importing the package takes seconds."""
    _compiler(vocabulary)


def compile(outputs: StructuredOutputs, vocabulary: Vocabulary) -> XgrProgram:
    tag: Any = outputs.structural_tag
    for schema in _schemas(tag):
        _check(schema)
    # A bare format is a whole tag to us, as it is to those who write `{"type": "triggered_tags", ...}`.
    if tag.get("type") != "structural_tag":
        tag = {"type": "structural_tag", "format": tag}
    try:
        compiled = _compiler(vocabulary).compile_structural_tag(json.dumps(tag))
    except Exception as error:  # whatever it raises, it is about the grammar
        raise GrammarError(_WHERE.sub("", str(error)).strip()[:1000]) from None
    return XgrProgram(compiled)


class XgrProgram:
    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self.num_bytes: int = compiled.memory_size_bytes

    def matcher(self) -> XgrMatcher:
        import xgrammar

        return XgrMatcher(xgrammar.GrammarMatcher(self._compiled))


class XgrMatcher:
    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def fill_mask(self, mask_W: np.ndarray) -> None:
        if not self._matcher.fill_next_token_bitmask(mask_W[None]):
            mask_W[:] = -1  # everything may come, and so nothing was written

    def accept(self, token: int) -> bool:
        return self._matcher.accept_token(token)

    def rollback(self, count: int) -> None:
        if count:
            self._matcher.rollback(count)

    @property
    def complete(self) -> bool:
        """xgrammar does not tell; where nothing else is left, its masks hold the end alone."""
        return False


@functools.lru_cache(maxsize=4)
def _compiler(vocabulary: Vocabulary) -> Any:
    import xgrammar

    # Special tokens are no text: without bytes, nothing but a tag's own token formats can name them.
    tokens = [b"" if i in vocabulary.special_ids else data for i, data in enumerate(vocabulary.tokens)]
    info = xgrammar.TokenizerInfo(tokens, stop_token_ids=list(vocabulary.eos_ids))
    return xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)


def _schemas(node: Any) -> Iterator[Any]:
    """Every JSON schema in a structural tag."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "json_schema":
                yield value
            else:
                yield from _schemas(value)
    elif isinstance(node, list):
        for value in node:
            yield from _schemas(value)


def _check(schema: Any) -> None:
    """Raises GrammarError for a keyword that would not be enforced."""
    if isinstance(schema, list):
        for part in schema:
            _check(part)
    if not isinstance(schema, dict):
        return
    for name, value in schema.items():
        if name not in _ENFORCED | _SILENT:
            raise GrammarError(f"{name} in a schema is not enforced by xgrammar")
        if name in _NAMED and isinstance(value, dict):
            _check(list(value.values()))
        elif name not in _VALUES:
            _check(value)
