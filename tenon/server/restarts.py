"""How soon an engine that died is started again, and when it is given up. Pure logic."""

from __future__ import annotations

from collections import deque

from tenon.server.settings import RestartSettings

SECOND_DELAY = 0.5  # before the second restart within the window; the first one comes at once
LONGEST_DELAY = 4.0


class Restarts:
    """The deaths of one engine within the last `window_seconds`."""

    def __init__(self, settings: RestartSettings | None = None) -> None:
        self._settings = settings or RestartSettings()
        self._deaths: deque[float] = deque()
        self.total = 0  # restarts, ever

    def died(self, now: float) -> float | None:
        """Seconds until the next start; None when it has died too often."""
        self._forget(now)
        self._deaths.append(now)
        if len(self._deaths) > self._settings.max_restarts:
            return None
        self.total += 1
        if len(self._deaths) == 1:
            return 0.0
        return min(SECOND_DELAY * 2.0 ** min(len(self._deaths) - 2, 16), LONGEST_DELAY)

    def blocked(self, now: float) -> float:
        """Seconds until one more restart is allowed."""
        self._forget(now)
        excess = len(self._deaths) - self._settings.max_restarts
        return self._deaths[excess - 1] + self._settings.window_seconds - now if excess > 0 else 0.0

    def _forget(self, now: float) -> None:
        while self._deaths and now - self._deaths[0] >= self._settings.window_seconds:
            self._deaths.popleft()
