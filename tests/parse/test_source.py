"""Markers and the text still to be read."""

from __future__ import annotations

import random
import re

import pytest

from tenon.parse.source import Malformed, Markers, Source


def naive(literals: list[str], text: str) -> tuple[int, str]:
    """Leftmost, then longest."""
    found = [(text.find(m), -len(m), m) for m in literals if m in text]
    return (min(found)[0], min(found)[2]) if found else (len(text), "")


def streamed(literals: list[str], pieces: list[str]) -> tuple[int, str]:
    markers, text, done = Markers(literals), "", 0
    for piece in [*pieces, None]:
        text += piece or ""
        end, found = markers.search(text, done, piece is None)
        assert not any(m in text[:end] for m in literals)
        if found:
            return end, found
        done = end
    return len(text), ""


def test_search_in_pieces_finds_what_a_search_of_the_whole_finds(seed):
    rng = random.Random(seed)
    for _ in range(2000):
        literals = ["".join(rng.choices("ab<", k=rng.randint(1, 4))) for _ in range(rng.randint(1, 3))]
        text = "".join(rng.choices("ab<", k=rng.randint(0, 12)))
        cut = rng.randint(0, len(text))
        assert streamed(literals, [text[:cut], text[cut:]]) == naive(literals, text), (literals, text, cut)
        assert streamed(literals, list(text)) == naive(literals, text), (literals, text)


@pytest.mark.parametrize(
    ("text", "certain"),
    [("Hello", 5), ("Hello <", 6), ("Hello <to", 6), ("Hello <to <t", 10), ("Hello <tx", 9), ("<tool", 0)],
)
def test_only_the_beginning_of_a_marker_is_held_back(text, certain):
    assert Markers(["<tool>", "</x>"]).search(text, 0, final=False) == (certain, "")
    assert Markers(["<tool>", "</x>"]).search(text, 0, final=True) == (len(text), "")


def test_marker_at():
    markers = Markers(["<a>", "<a>b"])
    assert markers.at("<a>c", 0, final=False) == "<a>"
    assert markers.at("<a>", 0, final=False) is None
    assert markers.at("<a>", 0, final=True) == "<a>"
    assert markers.at("x", 0, final=False) == ""
    assert markers.at("", 0, final=False) is None
    assert Markers([]).at("", 0, final=False) == ""


def result(reader):
    """What a reader returns when all its text has arrived."""
    with pytest.raises(StopIteration) as stop:
        next(reader)
    return stop.value.value


def test_mark_and_rewind_over_pieces():
    src = Source()
    src.feed("abc")
    src.skip(1)
    src.mark()
    src.skip(2)
    src.feed("def")
    src.skip(1)
    assert src.marked_size == 3
    src.rewind()
    assert src.take(5) == "bcdef"
    assert not src.marked
    src.rewind()  # nothing to go back to
    assert src.pos == len(src.text)


def test_what_the_end_cuts_off_counts_as_read():
    src = Source()
    src.feed("</to")
    reader = src.accept("</tool>")
    next(reader)
    src.final = True
    assert result(reader) is True
    assert result(src.accept("x")) is False


def test_run_is_bounded_to_the_character():
    for pieces in (["aaaaaaaa"], list("aaaaaaaa")):
        src = Source()
        reader = src.run(re.compile("a+"), 3)
        for piece in pieces[:3]:
            next(reader)
            src.feed(piece)
        src.feed("".join(pieces[3:]))
        with pytest.raises(Malformed):
            next(reader)
        assert len(src.text) - src.pos == 4


def test_run_reads_as_many_as_it_may():
    src = Source()
    src.feed("aaab")
    assert result(src.run(re.compile("a+"), 3)) == "aaa"
