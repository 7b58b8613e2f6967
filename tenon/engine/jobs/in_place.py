"""Jobs done by whoever asks, without limits: for an engine that has no clients but its own user."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tenon.engine.jobs.work import Allowance, Job, Tokens

if TYPE_CHECKING:
    from tenon.text.tokenizer import Tokenizer


class InPlace:
    def __init__(self, tokenizer: Callable[[], Tokenizer]) -> None:
        self._tokenizer = tokenizer

    async def run(self, job: Job, allowance: Allowance) -> Tokens:
        """Raises InvalidRequest."""
        from tenon.engine.jobs.bench import Bench  # Jinja, which not everybody needs

        return Bench(self._tokenizer()).do(job)

    async def stop(self) -> None:
        """There is nothing to stop."""
