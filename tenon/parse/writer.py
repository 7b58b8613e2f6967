"""Collects events: trims white space around markers, joins neighbouring deltas, numbers the calls."""

from __future__ import annotations

from tenon.parse.events import CallDelta, CallStart, ContentDelta, End, Event, ReasoningDelta

Kind = type[ReasoningDelta] | type[ContentDelta]


class Writer:
    """`text` goes to the current kind until `cut` says that a marker was read.

    White space is held until the next word shows that it does not touch a marker. Pieces of one kind that
    markup separates are joined by a line break.
    """

    def __init__(self, trim: bool) -> None:
        self.kind: Kind = ContentDelta
        self.fresh = True  # nothing but white space since the start or the last marker
        self.calls = 0
        self._events: list[Event] = []
        self._pieces: list[str] = []  # of the event being joined
        self._joining: Kind | int | None = None  # a kind of text, or the index of a call
        self._trim = trim
        self._held: list[str] = []  # white space and stop tokens that may turn out to be the end
        self._stop: int | None = None  # where in _held the first stop token is
        self._touching = False  # a marker stands before the next text
        self._written: set[Kind] = set()

    def text(self, text: str) -> None:
        """Text of the current kind."""
        body = text.rstrip() if self._trim else text
        if not body:
            self._held.append(text)
            return
        piece = "".join((*self._held, body))
        self._held, self._stop = [text[len(body) :]], None
        if self._touching:
            piece = piece.lstrip() if self._trim else piece
            piece = "\n" + piece if self.kind in self._written else piece
        self._touching = self.fresh = False
        self._written.add(self.kind)
        self._join(self.kind, piece)

    def stop(self, token: str) -> None:
        """A token that ends outputs: dropped at the end, text anywhere else."""
        if self._stop is None:
            self._stop = len(self._held)
        self._held.append(token)

    def cut(self, kind: Kind) -> None:
        """A marker was read; text of `kind` follows. White space before it is dropped."""
        self._held, self._stop = [], None
        self._touching = self.fresh = True
        self.kind = kind

    def begin(self, call_id: str, name: str) -> None:
        self.cut(ContentDelta)
        self._flush()
        self._events.append(CallStart(self.calls, call_id, name))
        self.calls += 1

    def write(self, fragment: str) -> None:
        """More of the arguments of the last call."""
        self._join(self.calls - 1, fragment)

    def finish(self) -> None:
        """The output is over."""
        tail = "".join(self._held[: self._stop])
        if tail and not self._touching:
            self._join(self.kind, tail)
        self._flush()
        self._events.append(End())

    def take(self) -> list[Event]:
        """The events since the last call."""
        self._flush()
        events, self._events = self._events, []
        return events

    def _join(self, what: Kind | int, text: str) -> None:
        if self._joining != what:
            self._flush()
            self._joining = what
        self._pieces.append(text)

    def _flush(self) -> None:
        text, what = "".join(self._pieces), self._joining
        if text and what is not None:
            self._events.append(CallDelta(what, text) if isinstance(what, int) else what(text))
        self._joining, self._pieces = None, []
