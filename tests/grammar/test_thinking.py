"""The tracker says of every text what the parser says of it, however it is cut into tokens."""

import random

import pytest

from tenon.core.structured import Thinking
from tenon.grammar.thinking import Phase, Tracker, cut_character
from tenon.parse.format import Format, Reasoning
from tenon.parse.machine import Parser


def tracker(**fields) -> Tracker:
    fields = {"pairs": [("<think>", "</think>")], "closing": [[1]], **fields}
    return Tracker(Thinking(**fields))


def place_after(tracker: Tracker, pieces: list[str]):
    place = tracker.begin()
    for piece in pieces:
        place = tracker.after(place, piece.encode())
    return place


@pytest.mark.parametrize(
    ("text", "phase"),
    [
        ("", Phase.START),
        (" \n", Phase.START),
        ("<thi", Phase.START),
        ("<thin air", Phase.CONTENT),
        ("Hi", Phase.CONTENT),
        ("Hi <think>", Phase.CONTENT),
        ("\n<think>", Phase.INSIDE),
        ("<think> </thi", Phase.INSIDE),
        ("<think> </think", Phase.INSIDE),
        ("<think> </think>", Phase.START),
        ("<think></think>\n\n", Phase.START),
        ("<think>a</think> b", Phase.CONTENT),
        ("<think>a</think> <think>", Phase.INSIDE),
        ("<think></</think></think>", Phase.CONTENT),
    ],
)
def test_phases(text, phase):
    for size in (1, 2, 3, 7, 100):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        assert place_after(tracker(), pieces).phase is phase


def test_begins_as_the_prompt_says():
    assert place_after(tracker(inside=0), ["a"]).phase is Phase.INSIDE
    assert place_after(tracker(inside=0), ["a</th", "ink>"]).phase is Phase.START
    assert place_after(tracker(may_open=False), ["<think>"]).phase is Phase.CONTENT


def test_other_markers_that_end_it():
    kimi = tracker(inside=0, ended_by=["<|calls|>"])
    assert place_after(kimi, ["a", "<|ca", "lls|>"]).phase is Phase.CONTENT
    harmony = tracker(pairs=[("<A>", "<E>")], anywhere=True)
    assert place_after(harmony, ["<F>Hi<E> and <", "A>more"]).phase is Phase.INSIDE


def test_tokens_inside_are_counted():
    assert place_after(tracker(), ["<think>", "a", "b", "</think>", "c"]).num_tokens == 2
    assert place_after(tracker(inside=0), ["a", "b"]).num_tokens == 2
    assert place_after(tracker(inside=0), [*"abc</thi</think>x"]).num_tokens == 8
    assert place_after(tracker(inside=0), ["ab", "c</", "think", ">\n", "x"]).num_tokens == 2
    assert place_after(tracker(), [*"<think>ab</think>", *"<think>c"]).num_tokens == 3
    assert place_after(tracker(), ["x", "y"]).num_tokens == 0


def test_says_what_the_parser_says(seed):
    """Random texts of markers and words: thinking for the one is reasoning for the other."""
    rng = random.Random(seed)
    words = ["<think>", "</think>", "<thi", "nk>", "</", " ", "\n", "a", "é", "<"]
    for _ in range(400):
        pieces = [rng.choice(words) for _ in range(rng.randint(1, 8))]
        inside = rng.random() < 0.3
        table = Format(reasoning=(Reasoning("<think>", "</think>"),))
        parser = Parser(table, None, "<think>" if inside else "")
        for piece in pieces:
            parser.push(piece)
        place = place_after(tracker(inside=0 if inside else -1), pieces)
        text = "".join(pieces)
        if inside and text.lstrip().startswith("<think>"):
            continue  # opened twice: one more marker to the parser, text to the tracker, thinking to both
        settled = not any(text.endswith(m[:i]) for m in ("<think>", "</think>") for i in range(1, len(m)))
        if settled:
            assert parser.thinking == (place.phase is Phase.INSIDE), pieces


def test_cut_character():
    for text in ("a", "é", "漢", "🙂"):
        data = text.encode()
        assert not cut_character(b"x" + data)
        for size in range(1, len(data)):
            assert cut_character(b"x" + data[:size])
    assert not cut_character(b"")
    assert not cut_character(b"\x80\x80\x80\x80\x80")
