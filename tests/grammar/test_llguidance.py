"""What llguidance lets pass satisfies the constraint; what it cannot enforce is refused."""

import contextlib
import json
import random
import re

import jsonschema
import numpy as np
import pytest

from tenon.core.structured import StructuredOutputs
from tenon.grammar import llguidance
from tenon.grammar.matcher import GrammarError

from .schemas import random_schema
from .vocabularies import EOS, ids_of, make, text_of, write


def compiled(vocabulary=None, **fields):
    return llguidance.compile(StructuredOutputs(**fields), vocabulary or make())


def test_random_outputs_satisfy_random_schemas(seed):
    rng, vocabulary = random.Random(seed), make(spare=5)
    finished = 0
    for _ in range(60):
        schema = {"type": "object", "properties": {"v": random_schema(rng)}, "required": ["v"]}
        out = write(compiled(vocabulary, json=schema).matcher(), vocabulary, rng)
        if out[-1] == EOS:
            finished += 1
            jsonschema.validate(json.loads(text_of(out, vocabulary)), schema)
    assert finished > 20


def test_json_object_compact_and_with_bounded_white_space(seed):
    rng, vocabulary = random.Random(seed), make()
    for compact in (False, True):
        program = compiled(vocabulary, json_object=True, disable_any_whitespace=compact)
        for _ in range(10):
            text = text_of(write(program.matcher(), vocabulary, rng, 200), vocabulary)
            outside = re.sub(r'"([^"\\]|\\.)*("|$)', "", text)
            assert text.startswith("{")
            assert not re.search(r"\s{65}", outside)
            assert not (compact and re.search(r"\s", outside))


@pytest.mark.parametrize("pattern", [r"\d{3}-[a-f]+", r"(yes|no)!?", r"[^a]b\s\w", r"a/b\\c"])
def test_outputs_match_a_regex(pattern, seed):
    rng, vocabulary = random.Random(seed), make()
    program = compiled(vocabulary, regex=pattern)
    for _ in range(10):
        out = write(program.matcher(), vocabulary, rng)
        if out[-1] == EOS:
            assert re.fullmatch(pattern, text_of(out, vocabulary), re.ASCII)


def test_choices_may_hold_anything(seed):
    rng, vocabulary = random.Random(seed), make()
    choices = ["yes", 'no "x"\n', "é\\", "</s>", "yes and no", "{{}}", "<|im_end|>", "start: x"]
    program = compiled(vocabulary, choice=choices)
    seen = {text_of(write(program.matcher(), vocabulary, rng), vocabulary) for _ in range(200)}
    assert seen <= set(choices)
    assert len(seen) > 3


def test_lark_and_ebnf(seed):
    rng, vocabulary = random.Random(seed), make()
    lark = 'start: greeting " " NAME\ngreeting: "hi" | "ho"\nNAME: /[A-Z][a-z]{1,3}/'
    ebnf = 'root ::= greeting " " name\ngreeting ::= "hi" | "ho"\nname ::= [A-Z] [a-z] [a-z]?\n'
    for text in (lark, ebnf):
        out = write(compiled(vocabulary, grammar=text).matcher(), vocabulary, rng)
        assert re.fullmatch("h[io] [A-Z][a-z]{1,3}", text_of(out, vocabulary))


def test_structural_tags_of_the_first_form():
    vocabulary = make()
    tag = {"structures": [{"begin": "<f>", "schema": {"type": "integer"}, "end": "</f>"}], "triggers": ["<f"]}
    matcher = compiled(vocabulary, structural_tag=tag).matcher()
    for char in b"free <f":
        assert matcher.accept(char)
    mask_W = np.zeros(vocabulary.words, np.int32)
    matcher.fill_mask(mask_W)
    assert ids_of(mask_W, vocabulary) == [ord(">")]
    assert matcher.accept(ord(">"))
    assert not matcher.accept(ord("x"))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"regex": "(["}, "regex"),
        ({"regex": "(?=a)b"}, "look"),
        ({"json": {"type": "strin"}}, "strin"),
        ({"json": {"not": {"type": "string"}}}, "not"),
        ({"json": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
        ({"json": {"enum": []}}, "nsatisfiable"),
        ({"json": {"$ref": "#"}}, "no output"),
        ({"json": {"$ref": "http://example.com/x"}}, "retriev"),
        ({"grammar": "start: x"}, "unknown name"),
        ({"grammar": 'root ::= "a'}, ""),
        ({"grammar": "root ::= x\n"}, ""),
        ({"structural_tag": {"structures": [], "triggers": []}}, "structures"),
        ({"structural_tag": {"structures": [{"begin": "<f>"}], "triggers": ["<g"]}}, "trigger"),
    ],
)
def test_what_cannot_be_enforced_is_refused(fields, reason):
    with pytest.raises(GrammarError, match=f"(?i){reason}"):
        compiled(**fields)


def test_special_tokens_are_no_text(seed):
    """A special token inside of a JSON string would end the output, or mean something."""
    vocabulary = make(special=("<|call|>",))
    matcher = compiled(vocabulary, json={"type": "string"}).matcher()
    assert matcher.accept(ord('"'))
    mask_W = np.zeros(vocabulary.words, np.int32)
    matcher.fill_mask(mask_W)
    assert EOS not in ids_of(mask_W, vocabulary)
    assert vocabulary.size - 1 not in ids_of(mask_W, vocabulary)
    for char in b"<|call|>":
        assert matcher.accept(char)


def test_rollback_takes_tokens_back(seed):
    rng, vocabulary = random.Random(seed), make()
    matcher = compiled(
        vocabulary, json={"type": "object", "properties": {"a": {"type": "integer"}}}
    ).matcher()
    mask_W, again_W = np.zeros((2, vocabulary.words), np.int32)
    for char in b'{"a"':
        assert matcher.accept(char)
    matcher.fill_mask(mask_W)
    for _ in range(5):
        text = rng.choice([b":1}", b": 12", b":-"])
        for char in text:
            assert matcher.accept(char)
        matcher.rollback(len(text))
        matcher.fill_mask(again_W)
        assert np.array_equal(mask_W, again_W)
    assert not matcher.accept(ord("x"))
    matcher.fill_mask(again_W)
    assert np.array_equal(mask_W, again_W), "a token that was refused has changed something"
    matcher.rollback(0)


def nested(levels: int) -> dict:
    schema: dict = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


HOSTILE = {
    "repeated repeats": {"regex": "((a{1,1000}){1,1000}){1,1000}"},
    "blow-up": {"regex": "(a|b)*a(a|b){200}"},
    "many": {"regex": "(.{0,500}a){500}b"},
    "deep": {"json": nested(20)},
    "long": {"json": {"type": "string", "minLength": 10**7}},
    "wide": {"json": {"type": "array", "items": {"type": "string"}, "minItems": 10**9}},
    "product": {
        "json": {
            "allOf": [
                {"anyOf": [{"type": "object", "required": [f"p{i}{j}"]} for j in range(2)]} for i in range(24)
            ]
        }
    },
    "doubling": {
        "json": {
            "$defs": {
                **{f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(25)},
                "a25": {"type": "string"},
            },
            "$ref": "#/$defs/a0",
        }
    },
    "left recursion": {"grammar": 'start: start start | "a" |'},
    "ambiguous": {"grammar": 'start: a\na: a a a | "x" | "xx"'},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_grammars_end_by_themselves(name, seed):
    """Compiling or writing ends, with an error or an output; pytest's own timeout is the judge."""
    vocabulary = make()
    with contextlib.suppress(GrammarError):
        write(compiled(vocabulary, **HOSTILE[name]).matcher(), vocabulary, random.Random(seed), 100)
