"""Control tokens that only the chat template may make, whatever text the messages hold.

A template prints what people wrote between control tokens such as `<|im_end|>`, and out comes one string.
So the words of a conversation are marked before the template sees them: a noncharacter, which is nowhere else
in it, stands behind the first letter of every text that spells a control token. The marks pass through the
template, and where one is left, the prompt is cut before it is encoded (`Tokenizer.encode_marked`): no
control token is recognised across a cut. Text without the like of control tokens has no marks, and its ids
are as ever.

A control token may also come about half from the template and half from a word (`'<' ~ key ~ '>'`). Words
that could have a part in one that the prompt shows are marked at both ends, and the template runs again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

from tenon.errors import InvalidRequest

# Noncharacters: no text has a use for them, and tokenizers know them only as bytes.
_MARKS = [chr(code) for code in (*range(0xFDD0, 0xFDF0), *range(0x1FFFE, 0x10FFFF, 0x10000))]
_HEAD = 3


class Controls:
    """The texts of a vocabulary's control tokens."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = frozenset(filter(None, texts))
        size = min([_HEAD, *map(len, self.texts)])
        self._lengths: dict[str, list[int]] = {}  # by how the texts begin
        for text in self.texts:
            lengths = self._lengths.setdefault(text[:size], [])
            if len(text) not in lengths:
                lengths.append(len(text))

    def found(self, text: str) -> Iterator[tuple[int, str]]:
        """Where control tokens are spelled, and which; they may overlap, and come in no order."""
        for head, lengths in self._lengths.items():
            at = text.find(head)
            while at >= 0:
                for length in lengths:
                    if (spelled := text[at : at + length]) in self.texts:
                        yield at, spelled
                at = text.find(head, at + 1)

    def mark(self, text: str, mark: str) -> str:
        """The text with a mark within every control token that it spells."""
        cuts = {at + 1 for at, _ in self.found(text)}
        cuts |= {at for at, spelled in self.found(text) if len(spelled) == 1}
        if not cuts:
            return text
        bounds = [0, *sorted(cuts), len(text)]
        return mark.join(text[a:b] for a, b in pairwise(bounds))


def marked(
    values: dict[str, Any], controls: Controls, render: Callable[[dict[str, Any]], str]
) -> tuple[str, str]:
    """What `render` makes of the variables of a template, with marks, and the mark ("": there is none).

    All text in `values` is untrusted, but for the roles of messages. Raises InvalidRequest.
    """
    try:
        mark = _unused(values)
        inside = _changed(values, lambda word: controls.mark(word, mark))
    except RecursionError:
        raise InvalidRequest("messages hold something that is nested too deep", "messages") from None
    prompt = render(inside)
    edges = _Edges({spelled for _, spelled in controls.found(prompt)})
    if any(edges.touch(word) for word in _words(inside)):
        again = render(_changed(inside, lambda word: _framed(word, mark) if edges.touch(word) else word))
        if again.replace(mark, "") != prompt.replace(mark, ""):
            raise InvalidRequest(
                "messages: the chat template takes a word apart that could be a part of one of the model's "
                "control tokens; use another word",
                "messages",
                "control_token_text",
            )
        prompt = again
    return prompt, mark if mark in prompt else ""


class _Edges:
    """Which words could be a part of one of these control tokens, with other text around them."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = tuple(texts)
        self._longest = max(map(len, self._texts), default=0)
        self._begins = tuple({text[:n] for text in self._texts for n in range(1, len(text))})
        self._ends = tuple({text[n:] for text in self._texts for n in range(1, len(text))})

    def touch(self, word: str) -> bool:
        core = word.strip()  # as templates do
        if core.endswith(self._begins) or core.startswith(self._ends):
            return True
        return 0 < len(core) < self._longest and any(core in text for text in self._texts)


def _framed(word: str, mark: str) -> str:
    core = word.strip()
    before, _, after = word.partition(core)
    return f"{before}{mark}{core}{mark}{after}"


def _unused(values: dict[str, Any]) -> str:
    words = list(_words(values))
    for mark in _MARKS:
        if not any(mark in word for word in words):
            return mark
    raise InvalidRequest(
        "messages hold every noncharacter of Unicode, of which one is needed; leave one out",
        "messages",
        "control_token_text",
    )


def _changed(values: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The variables of a template with every untrusted word changed; their names are the template's."""

    def new(value: Any) -> Any:
        if isinstance(value, str):
            return change(value)
        if isinstance(value, dict):
            return {change(name): new(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [new(inner) for inner in value]
        return value

    def message(fields: dict[str, Any]) -> dict[str, Any]:
        return {name: value if name == "role" else new(value) for name, value in fields.items()}

    return {
        name: [message(fields) for fields in value] if name == "messages" else new(value)
        for name, value in values.items()
    }


def _words(values: dict[str, Any]) -> Iterator[str]:
    words: list[str] = []

    def keep(word: str) -> str:
        words.append(word)
        return word

    _changed(values, keep)
    return iter(words)
