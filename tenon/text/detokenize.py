"""Text of a growing list of tokens, piece by piece, with stop strings.

The pieces put together are the text of all tokens together, however the tokens were cut into calls. Each
token costs the same, however long the text already is: bytes that do not yet make a character wait in an
incremental UTF-8 decoder, and text that may still become a stop string waits here.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

from tenon.core.sampling import SamplingParams
from tenon.text.tokenizer import Tokenizer

_MAX_UTF8_BYTES = 4


class Detokenizer:
    """One choice of a request. Feed it ids with `push`, then call `flush`; both return new text.

    After a stop string was met, `stopped` is true, `stop_reason` holds the string and `num_tokens` the number
    of tokens up to and with the one that completed it; later tokens are ignored.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt_ids: Sequence[int] = (), params: SamplingParams | None = None
    ) -> None:
        """`prompt_ids` is what comes before: text goes on in the middle of a line, or even of a character."""
        params = params or SamplingParams()
        self._tokenizer = tokenizer
        self._skip = tokenizer.special_ids if params.skip_special_tokens else frozenset()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = self._start(prompt_ids)
        self._stop = _StopStrings(params.stop) if params.stop else None
        self._include_stop = params.include_stop_str_in_output
        self._min_tokens = params.min_tokens
        self._held = ""  # text not yet given out: its end may be the beginning of a stop string
        self.num_tokens = 0
        self.stop_reason: str | None = None

    @property
    def stopped(self) -> bool:
        return self.stop_reason is not None

    def push(self, ids: Iterable[int]) -> str:
        """New text that these tokens make certain."""
        if self._stop is None:
            return self._push_freely(ids)
        parts: list[str] = []
        for token in ids:
            if self.stopped:
                break
            self.num_tokens += 1
            text = self._decode(token)
            if not text:
                continue
            if self.num_tokens <= self._min_tokens:  # a stop string may begin only after these
                parts.append(text)
            else:
                parts.append(self._release(self._stop, self._held + text))
        return "".join(parts)

    def flush(self) -> str:
        """What was still held back, when no more tokens come."""
        if self.stopped:
            return ""
        rest = self._held + self._decoder.decode(b"", final=True)
        self._held = ""
        return rest

    def _push_freely(self, ids: Iterable[int]) -> str:
        parts = []
        for token in ids:
            self.num_tokens += 1
            parts.append(self._decode(token))
        return "".join(parts)

    def _release(self, stop: _StopStrings, text: str) -> str:
        found = stop.find(text)
        if found is None:
            keep = stop.hold(text)
            self._held = text[len(text) - keep :]
            return text[: len(text) - keep]
        start, string = found
        self.stop_reason = string
        return text[: start + len(string)] if self._include_stop else text[:start]

    def _decode(self, token: int) -> str:
        if token in self._skip:
            return ""
        data = self._tokenizer.token_bytes(token)
        if self._at_start and data:
            self._at_start = False
            data = data.removeprefix(b" ")
        return self._decoder.decode(data)

    def _start(self, prompt_ids: Sequence[int]) -> bool:
        """Takes over a character that the prompt left open; returns whether the text is still to begin."""
        tail = b""
        for token in reversed(prompt_ids):
            if token not in self._skip:
                tail = self._tokenizer.token_bytes(token) + tail
            if len(tail) >= _MAX_UTF8_BYTES:
                break
        self._decoder.decode(tail[-_MAX_UTF8_BYTES:])
        return self._tokenizer.strip_first_space and not tail


class _StopStrings:
    """Finds stop strings in text that arrives in pieces."""

    def __init__(self, strings: Iterable[str]) -> None:
        self._strings = list(strings)
        self._longest = max(map(len, self._strings))
        # Letters with which an unfinished stop string can end: most text ends with none of them.
        self._inner = frozenset("".join(string[:-1] for string in self._strings))

    def find(self, text: str) -> tuple[int, str] | None:
        """Start and string of the match that is complete first; of those that end together, the longest.

        That is where a reader would stop who gets the text letter by letter, so it does not depend on how the
        text was cut into tokens.
        """
        best: tuple[int, str] | None = None
        for string in self._strings:
            start = text.find(string)
            if start < 0:
                continue
            if best is None or (start + len(string), start) < (best[0] + len(best[1]), best[0]):
                best = (start, string)
        return best

    def hold(self, text: str) -> int:
        """Length of the longest end of `text`, which is not empty, that is the beginning of a stop string."""
        if text[-1] not in self._inner:
            return 0
        for length in range(min(len(text), self._longest - 1), 0, -1):
            end = text[len(text) - length :]
            if any(string.startswith(end) for string in self._strings):
                return length
        return 0
