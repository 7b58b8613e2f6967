"""Structural tags by xgrammar, where it is installed; what it would pass over is refused."""

import json
import random
import re

import numpy as np
import pytest

from tenon.core.structured import StructuredOutputs
from tenon.grammar import select, xgrammar
from tenon.grammar.matcher import GrammarError

from .vocabularies import EOS, ids_of, make, text_of, write

SCHEMA = {
    "type": "object",
    "properties": {"x": {"type": "integer"}},
    "required": ["x"],
    "additionalProperties": False,
}


def tag(schema=SCHEMA, **fields) -> StructuredOutputs:
    one = {"begin": "<f=a>", "content": {"type": "json_schema", "json_schema": schema}, "end": "</f>"}
    form = {"type": "triggered_tags", "triggers": ["<f"], "tags": [one], **fields}
    return StructuredOutputs(structural_tag={"type": "structural_tag", "format": form})


def test_tags_hold_what_their_schema_says(seed):
    pytest.importorskip("xgrammar")
    rng, vocabulary = random.Random(seed), make(special=("<|c|>",), spare=7)
    program = select.compile(tag(at_least_one=True, stop_after_first=True), vocabulary)
    assert program.num_bytes > 0
    finished = 0
    for _ in range(10):
        out = write(program.matcher(), vocabulary, rng, 200)
        if out[-1] == EOS:
            finished += 1
            found = re.fullmatch(r"(?s)<f=a>(.*)</f>", text_of(out, vocabulary))
            assert isinstance(json.loads(found[1])["x"], int)
    assert finished


def test_rollback():
    pytest.importorskip("xgrammar")
    vocabulary = make()
    matcher = select.compile(tag(at_least_one=True), vocabulary).matcher()
    mask_W, again_W = np.zeros((2, vocabulary.words), np.int32)
    for char in b"<f":
        assert matcher.accept(char)
    matcher.fill_mask(mask_W)
    assert ids_of(mask_W, vocabulary) == [ord("=")]
    for char in b"=a>":
        assert matcher.accept(char)
    assert not matcher.accept(ord("x"))
    matcher.rollback(3)
    matcher.rollback(0)
    matcher.fill_mask(again_W)
    assert np.array_equal(mask_W, again_W)
    assert not matcher.complete


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "uniqueItems": True},
        {"not": {}},
        {"type": "object", "properties": {"a": {"multipleOf": 3}}},
        {"anyOf": [{"type": "integer"}, {"if": {}}]},
        {"$defs": {"multipleOf": {"contains": {}}}},
    ],
)
def test_keywords_that_would_be_passed_over_are_refused(schema):
    with pytest.raises(GrammarError, match="not enforced"):
        xgrammar.compile(tag(schema), make())


def test_a_property_may_have_the_name_of_a_keyword():
    pytest.importorskip("xgrammar")
    schema = {"type": "object", "properties": {"not": {"type": "null"}}, "required": ["not"]}
    assert xgrammar.compile(tag(schema), make())


def test_what_is_wrong_is_told_without_the_library_s_own_lines():
    pytest.importorskip("xgrammar")
    wrong = StructuredOutputs(structural_tag={"type": "structural_tag", "format": {"type": "foo"}})
    with pytest.raises(GrammarError) as error:
        select.compile(wrong, make())
    assert "foo" in str(error.value)
    assert ".cc" not in str(error.value)


def test_selection_and_its_reasons(monkeypatch):
    assert xgrammar.support(StructuredOutputs(regex="a")) is not None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "xgrammar" else 1)
    with pytest.raises(GrammarError, match=r"llguidance: .*; xgrammar: .*pip install tenon\[xgrammar\]"):
        select.compile(tag(), make())
    with pytest.raises(GrammarError, match=r"^llguidance: ") as error:
        select.compile(StructuredOutputs(regex="(["), make())
    assert "xgrammar" not in str(error.value)
