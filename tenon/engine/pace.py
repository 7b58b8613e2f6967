"""How much prompt a step takes beside requests that decode, so that their tokens keep coming evenly.

A step's time is that of its decoding plus so much for each token of prompts; both are followed as they are
measured. Prompts get at most `RATIO` times what the decoding takes, so the pause between two tokens of a
request stays within `1 + RATIO` times the usual one, on any machine, for any model and context. Prompts that
nobody decodes beside get steps of `ALONE_SECONDS`: short enough that of several prompts each has its first
token when it is done, not when all are. Results do not depend on how prompts are cut (DESIGN, section 6).
"""

from __future__ import annotations

RATIO = 2.5
ALONE_SECONDS = 0.1
LEAST = 64  # tokens of prompts in a step: with fewer, reading the weights would dominate
_WEIGHT = 0.2  # of the latest measurement


class Pace:
    """Measured times, and the limit that follows from them."""

    def __init__(self, least: int = LEAST) -> None:
        self._least = least
        self._decode_seconds = 0.0  # of a step that only decodes; 0: not known yet
        self._token_seconds = 0.0  # for each token of prompts

    def prompt_tokens(self, decoding: int) -> int:
        """Most tokens of prompts in a step beside `decoding` requests that decode."""
        seconds = RATIO * self._decode_seconds if decoding else ALONE_SECONDS
        if not (seconds and self._token_seconds):
            return 2 * self._least
        return max(self._least, int(seconds / self._token_seconds))

    def observe(self, prompt_tokens: int, decoding: int, seconds: float) -> None:
        """A step has run."""
        if not prompt_tokens:
            self._decode_seconds = _follow(self._decode_seconds, seconds)
            return
        spent = seconds - (self._decode_seconds if decoding else 0.0)
        # Few tokens say little about the time of one.
        if 2 * prompt_tokens >= self._least and spent > 0:
            self._token_seconds = _follow(self._token_seconds, spent / prompt_tokens)


def _follow(average: float, value: float) -> float:
    """The moving average, which a single value (the machine had other work) may move by a third at most."""
    if not average:
        return value
    return average + _WEIGHT * (min(value, (1 + 1 / (3 * _WEIGHT)) * average) - average)
