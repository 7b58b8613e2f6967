"""When the grammar counts and when it does not, on random outputs."""

import json
import random

import numpy as np
import pytest

from tenon.core.structured import StructuredOutputs, Thinking
from tenon.grammar import llguidance
from tenon.grammar.guide import MAX_ROLLBACK, Guide
from tenon.grammar.thinking import Tracker

from .vocabularies import EOS, WORDS, ids_of, make, text_of

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
MARKS = ("<think>", "</think>")
# Markers as tokens of their own, as pieces, and glued to what precedes or follows them.
GLUED = ["<thi", "nk>", "</thi", "nk>\n\n", 'nk>{"', '</think>{"', "></", "k>x", "<think>\n", "\n</think>"]
VOCABULARIES = {
    "tokens": make(special=MARKS),
    "pieces": make([*WORDS, *GLUED]),
    "bytes": make([]),
}


def thinking(**fields) -> Thinking:
    return Thinking(**{"pairs": [MARKS], "closing": [list(b"\n</think>")], **fields})


def guided(vocabulary, tracked: Thinking | None, budget=None, structured=True, num_prompt=3) -> Guide:
    matcher = llguidance.compile(StructuredOutputs(json=SCHEMA), vocabulary).matcher() if structured else None
    return Guide(vocabulary, num_prompt, matcher, Tracker(tracked) if tracked else None, budget)


def allowed(guide: Guide, vocabulary) -> list[int]:
    mask_W = np.full(vocabulary.words, 0x55, np.int32)
    ids = ids_of(mask_W, vocabulary) if (filled := guide.fill(mask_W)) else list(range(vocabulary.size))
    assert guide.error is None, guide.error
    assert not filled or ids
    return ids


def write(guide: Guide, vocabulary, rng: random.Random, most=400, prefer=b'<>/think{}":a1') -> list[int]:
    tokens = [0, 0, 0]
    for _ in range(most):
        guide.follow(tokens)
        assert guide.error is None, guide.error
        ids = allowed(guide, vocabulary)
        liked = [i for i in ids if vocabulary.tokens[i] and all(b in prefer for b in vocabulary.tokens[i])]
        tokens.append(rng.choice(liked if liked and rng.random() < 0.8 else ids))
        if tokens[-1] == EOS:
            break
    return tokens[3:]


def answer_of(text: str, inside: bool) -> str:
    body = text if inside else text.lstrip()
    if inside:
        return body.partition(MARKS[1])[2].strip()
    if body.startswith(MARKS[0]):
        return body.partition(MARKS[1])[2].strip()
    return text


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize("inside", [-1, 0])
def test_the_answer_is_valid_and_the_thinking_is_free(name, inside, seed):
    rng, vocabulary = random.Random(seed), VOCABULARIES[name]
    finished = thought = 0
    for _ in range(40):
        guide = guided(vocabulary, thinking(inside=inside), budget=rng.choice([None, 30, 0]))
        out = write(guide, vocabulary, rng)
        if out[-1] == EOS:
            text = b"".join(vocabulary.tokens[t] for t in out[:-1]).decode(errors="replace")
            answer = json.loads(answer_of(text, inside == 0))
            assert list(answer) == ["a"]
            assert isinstance(answer["a"], int)
            finished += 1
            thought += "</think>" in text
    assert finished
    assert thought or inside < 0


def test_without_thinking_the_grammar_counts_at_once(seed):
    vocabulary = VOCABULARIES["tokens"]
    for tracked in (None, thinking(may_open=False)):
        guide = guided(vocabulary, tracked)
        assert {vocabulary.tokens[i][:1] for i in allowed(guide, vocabulary)} == {b"{"}
    may = allowed(guided(vocabulary, thinking()), vocabulary)
    assert {vocabulary.tokens[i] for i in may} >= {b"{", b"<", b"<think>"}


def test_inside_everything_goes_but_the_end():
    vocabulary = VOCABULARIES["pieces"]
    guide = guided(vocabulary, thinking(inside=0))
    glued = {vocabulary.tokens.index(b'</think>{"')}
    assert set(allowed(guide, vocabulary)) == set(range(vocabulary.size)) - {EOS} - glued
    tokens = [0, 0, 0, vocabulary.tokens.index(b"</thi")]
    guide.follow(tokens)
    glued.add(vocabulary.tokens.index(b'nk>{"'))
    assert set(allowed(guide, vocabulary)) == set(range(vocabulary.size)) - {EOS} - glued
    tokens.append(vocabulary.tokens.index(b"nk>\n\n"))
    guide.follow(tokens)
    assert {vocabulary.tokens[i][:1] for i in allowed(guide, vocabulary)} == {b"{", b" ", b"\n", b"\t", b"\r"}


def test_inside_only_its_own_marker_ends_the_thinking():
    vocabulary = make(["<c", "all>", "<call>x"], special=("<call>",))
    guide = guided(vocabulary, thinking(inside=0, ended_by=["<call>"]))
    tokens = [0, 0, 0, vocabulary.tokens.index(b"<c")]
    guide.follow(tokens)
    free = {vocabulary.tokens[i] for i in allowed(guide, vocabulary)}
    assert set(vocabulary.tokens) - free == {b"<eos>", b"all>", b"<call>", b"<call>x"}


@pytest.mark.parametrize("structured", [True, False])
def test_the_budget_closes_the_thinking(structured, seed):
    rng, vocabulary = random.Random(seed), VOCABULARIES["bytes"]
    for budget in (0, 1, 5):
        guide = guided(vocabulary, thinking(inside=0), budget, structured)
        tokens = [0, 0, 0]
        for _ in range(budget):
            guide.follow(tokens)
            assert len(allowed(guide, vocabulary)) > 200
            tokens.append(rng.choice(b"abc"))
        for byte in b"\n</think>":
            guide.follow(tokens)
            assert allowed(guide, vocabulary) == [byte]
            tokens.append(byte)
        guide.follow(tokens)
        assert len(allowed(guide, vocabulary)) == (5 if structured else vocabulary.size)


def test_the_budget_waits_for_a_character_to_be_complete():
    vocabulary = VOCABULARIES["bytes"]
    guide = guided(vocabulary, thinking(inside=0), budget=2, structured=False)
    tokens = [0, 0, 0, *"🙂".encode()]
    for size in (5, 6):
        guide.follow(tokens[:size])
        assert len(allowed(guide, vocabulary)) > 1
    guide.follow(tokens)
    assert allowed(guide, vocabulary) == [ord("\n")]


def test_rollback_is_as_if_nothing_had_come(seed):
    rng = random.Random(seed)
    for name, vocabulary in VOCABULARIES.items():
        for _ in range(15):
            tracked = thinking(inside=rng.choice([-1, 0]))
            out = write(guided(vocabulary, tracked, 20), vocabulary, rng, 60)
            guide = guided(vocabulary, tracked, 20)
            tokens = [0, 0, 0]
            while len(tokens) - 3 < len(out):
                size = min(rng.randint(1, 6), len(out) - len(tokens) + 3)
                tokens += out[len(tokens) - 3 :][:size]
                guide.follow(tokens)
                back = rng.randint(0, size)
                guide.rollback(back)
                tokens = tokens[: len(tokens) - back]
                fresh = guided(vocabulary, tracked, 20)
                fresh.follow(tokens)
                assert allowed(guide, vocabulary) == allowed(fresh, vocabulary), (name, tokens)
                assert guide.must_end == fresh.must_end
                if rng.random() < 0.2:
                    break


def test_rollback_has_an_end():
    vocabulary = VOCABULARIES["bytes"]
    guide = guided(vocabulary, None, structured=False)
    guide.follow([0] * 200)
    guide.rollback(MAX_ROLLBACK)
    with pytest.raises(AssertionError):
        guide.rollback(1)


def test_must_end_and_errors():
    vocabulary = VOCABULARIES["bytes"]
    guide = guided(vocabulary, None)
    tokens = [0, 0, 0, *b'{"a":1']
    guide.follow(tokens)
    allowed(guide, vocabulary)
    assert not guide.must_end
    tokens.append(ord("}"))
    guide.follow(tokens)
    assert allowed(guide, vocabulary) == [EOS]
    assert guide.must_end
    guide.follow([*tokens, ord("x")])
    assert "does not allow" in guide.error


def test_a_grammar_within_which_one_thinks():
    """As harmony's: the grammar describes the markers too, and the budget still counts."""
    vocabulary = make()
    matcher = llguidance.compile(
        StructuredOutputs(grammar='start: "<think>" /[a-z\\n]*/ "</think>" "ok"'), vocabulary
    ).matcher()
    tracked = thinking(in_grammar=True)
    guide = Guide(vocabulary, 0, matcher, Tracker(tracked), 3)
    out = list(b"<think>abc")
    guide.follow(out)
    assert allowed(guide, vocabulary) == [ord("\n")]
    guide.follow([*out, *b"\n</think>o"])
    assert allowed(guide, vocabulary) == [ord("k")]
    assert text_of(out, vocabulary) == "<think>abc"
