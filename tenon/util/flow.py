"""Whether a download goes on as it should: who sends it may send without end, or nothing. Pure logic."""

from __future__ import annotations

SLACK_BYTES = 64 << 20  # what may come beyond what was announced: headers, lists, blocks of a file system
STEP_BYTES = 64 << 10  # less than that is no progress


class Flow:
    """`look` is told now and then what is there. `most` bytes were announced (None: not known yet)."""

    def __init__(self, seconds: float, begin_bytes: int, now: float, most: int | None = None) -> None:
        self.most = most
        self._seconds = seconds
        self._begin = self._last = begin_bytes
        self._files = 0
        self._since = now

    def look(self, now: float, num_bytes: int, num_files: int = 0) -> str | None:
        """What is wrong, if something is. A file more is progress too."""
        if self.most is not None and num_bytes - self._begin > self.most + SLACK_BYTES:
            return f"more comes than the {self.most} bytes that were announced"
        if abs(num_bytes - self._last) >= STEP_BYTES or num_files != self._files:
            self._last, self._files, self._since = num_bytes, num_files, now
        elif now - self._since > self._seconds:
            return f"nothing has come for {self._seconds:g} s"
        return None
