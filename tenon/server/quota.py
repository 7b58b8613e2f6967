"""What one API key may use, over all models: requests in flight, tokens per minute. Both may be unbounded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """`reason` is "key_requests" or "key_tokens"; `seconds`: when another attempt makes sense, if known."""

    reason: str
    seconds: float | None


@dataclass(slots=True)
class _Account:
    """`tokens` is what is left of a bucket that fills all the time; below zero, the key owes."""

    tokens: float
    at: float
    in_flight: int = 0


class Quotas:
    """The accounts of all callers; without keys there is one. A limit of 0 is none.

    Tokens are a leaky bucket of one minute's tokens: a request is let in while there is anything in it, and
    charged with the tokens of its prompt, and then with those it generates.
    """

    def __init__(self, requests: int, tokens_per_minute: int, clock: Callable[[], float]) -> None:
        self._requests = requests
        self._tokens = tokens_per_minute
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    def refusal(self, caller: str, choices: int) -> Refusal | None:
        account = self._account(caller)
        if self._requests and account.in_flight and account.in_flight + choices > self._requests:
            return Refusal("key_requests", None)
        if self._tokens and account.tokens <= 0:
            return Refusal("key_tokens", (1 - account.tokens) * 60 / self._tokens)
        return None

    def begin(self, caller: str, choices: int, tokens: int) -> None:
        self._account(caller).in_flight += choices
        self.charge(caller, tokens)

    def charge(self, caller: str, tokens: int) -> None:
        """Tokens of a prompt, or generated ones; negative ones are given back."""
        if self._tokens:
            self._account(caller).tokens -= tokens

    def end(self, caller: str, choices: int) -> None:
        account = self._account(caller)
        account.in_flight -= choices
        if not account.in_flight and account.tokens >= self._tokens:
            del self._accounts[caller]  # as good as new

    def _account(self, caller: str) -> _Account:
        now = self._clock()
        if (account := self._accounts.get(caller)) is None:
            account = self._accounts[caller] = _Account(self._tokens, now)
        account.tokens = min(self._tokens, account.tokens + (now - account.at) * self._tokens / 60)
        account.at = now
        return account
