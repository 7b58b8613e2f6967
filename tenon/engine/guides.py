"""Requests whose grammars are being compiled: they wait here, in front of the scheduler's queues."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from tenon.core.request import Request
from tenon.grammar.compiler import Compiler, Ticket
from tenon.grammar.guide import Guide
from tenon.grammar.thinking import Tracker

log = logging.getLogger(__name__)


class Guides:
    """Makes the guides of requests that need one (`SamplingParams.guided`)."""

    def __init__(self, compiler: Compiler) -> None:
        self.compiler = compiler
        self._waiting: dict[str, tuple[Request, Ticket]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._waiting

    def add(self, request: Request) -> None:
        """Have the request's grammar compiled. Raises InvalidRequest if that cannot even begin."""
        self._waiting[request.id] = (request, self.compiler.submit(request.params.structured_outputs))

    def drop(self, request_id: str) -> None:
        """Forget a request; nothing if it does not wait here."""
        if (waiting := self._waiting.pop(request_id, None)) is not None:
            self.compiler.drop(waiting[1])

    def take(self) -> Iterator[tuple[Request, Exception | None]]:
        """The requests that wait no longer, each with its guide, or with what is wrong with its grammar."""
        self.compiler.check_time()
        for request_id, (request, ticket) in list(self._waiting.items()):
            if ticket.done:
                del self._waiting[request_id]
                yield request, ticket.error or self._give_guide(request, ticket)

    def _give_guide(self, request: Request, ticket: Ticket) -> Exception | None:
        try:
            request.guide = self._guide(request, ticket)
        except Exception as error:
            log.exception("request %s could not be given its grammar", request.id)
            return error
        return None

    def _guide(self, request: Request, ticket: Ticket) -> Guide:
        params, vocabulary = request.params, self.compiler.vocabulary
        assert vocabulary is not None
        matcher = ticket.program.matcher() if ticket.program else None
        tracker = Tracker(params.thinking) if params.thinking else None
        return Guide(vocabulary, request.num_prompt, matcher, tracker, params.thinking_token_budget)
