"""The engine: messages in, one step at a time, outputs out. Knows no sockets and no text.

A request can do no harm to others: what goes wrong while it is handled ends it with an error. A step that
fails as a whole is taken apart by the scheduler (`Scheduler.blame`) until the culprit is found; one that runs
out of memory is made smaller first (`Scheduler.squeeze`).
"""

from __future__ import annotations

import logging
import time
from itertools import count

from tenon.core.messages import (
    Abort,
    AddRequest,
    EngineOutput,
    EngineStats,
    Outputs,
    Ready,
    ResetPrefixCache,
    ToEngine,
    TokenLogprob,
)
from tenon.core.request import Request
from tenon.core.schedule import Schedule
from tenon.engine.finish import end_of, error_of, output_of, started
from tenon.engine.guides import Guides
from tenon.engine.prepare import Preparer
from tenon.engine.runner import Runner
from tenon.engine.scheduler import Scheduler
from tenon.engine.table import Table
from tenon.errors import InvalidRequest
from tenon.grammar.matcher import GrammarError
from tenon.sample.sampler import Sampled
from tenon.util.failpoint import failpoint

log = logging.getLogger(__name__)

COMPILE_POLL_SECONDS = 0.01  # how long an idle engine waits for a grammar before it looks for messages


class Engine:
    """Everything that a step needs. Made by `tenon.engine.loader`."""

    def __init__(
        self,
        scheduler: Scheduler,
        table: Table,
        preparer: Preparer,
        runner: Runner,
        guides: Guides,
        ready: Ready,
    ) -> None:
        self.scheduler = scheduler
        self.table = table
        self.preparer = preparer
        self.runner = runner
        self.guides = guides
        self.ready = ready
        self.num_steps = 0
        self._eos_ids = frozenset(runner.model.spec.eos_token_ids)
        self._seq = count()
        self._pending: list[EngineOutput] = []  # answers that need no step

    @property
    def has_work(self) -> bool:
        return bool(len(self.scheduler) or self._pending or len(self.guides))

    def handle(self, message: ToEngine) -> None:
        """Take one message. Raises nothing that a request can cause."""
        if isinstance(message, AddRequest):
            self._add(message)
        elif isinstance(message, Abort):
            for request_id in message.request_ids:
                self.guides.drop(request_id)
                if (request := self.scheduler.get(request_id)) is not None:
                    self._end(request)
        elif isinstance(message, ResetPrefixCache):
            self.scheduler.cache.reset()

    def refuse(self, request_id: str, reason: str, kind: str | None = "InvalidRequest") -> None:
        """Answer a request that is not taken, with the next outputs. `kind` None: it is not to blame."""
        self._pending.append(error_of(request_id, reason, kind))

    def step(self) -> Outputs:
        """Compute one step; its outputs, and answers that were pending."""
        if len(self.guides):
            self._add_guided()
        outputs, self._pending = self._pending, []
        try:
            schedule = self.scheduler.schedule()
        except Exception as error:
            outputs += self._start_over(error)
            return Outputs(outputs=outputs)
        if not schedule and len(self.guides) and not outputs:
            self.guides.compiler.wait(COMPILE_POLL_SECONDS)
        try:
            self.table.update(schedule)
            if schedule:
                begin = time.perf_counter()
                prepared = self.preparer.prepare(schedule)
                sampled = self.runner.run(prepared)
                self.scheduler.advance(schedule, time.perf_counter() - begin)
        except Exception as error:
            outputs += self._contain(schedule, error)
        else:
            if schedule:
                outputs += started(schedule, prepared.sampled)
                self._finish(prepared.sampled, sampled, outputs)
        self.num_steps += 1
        return Outputs(outputs=outputs)

    def stats(self) -> EngineStats:
        scheduler, cache = self.scheduler, self.scheduler.cache
        return EngineStats(
            num_requests_running=len(scheduler.running),
            num_requests_waiting=len(scheduler.waiting) + len(self.guides),
            kv_blocks_total=cache.pool.num_blocks,
            kv_blocks_used=cache.pool.num_used,
            prefix_cache_queries=cache.num_queried,
            prefix_cache_hits=cache.num_hit,
            num_preemptions=scheduler.num_preemptions,
            num_steps=self.num_steps,
        )

    def check_integrity(self) -> None:
        """Assert every invariant of queues, rows and blocks."""
        self.scheduler.check_integrity()
        rows = [request.row for request in self.scheduler if request.row >= 0]
        assert len(set(rows)) == len(rows) == self.table.num_rows
        for request in self.scheduler.running:
            for group, table_RB, blocks, gone in zip(
                self.table.groups, self.table.block_tables, request.blocks, request.gone, strict=False
            ):
                held = [block * group.parts for block in blocks[gone:]]
                assert table_RB[request.row, gone : len(blocks)].tolist() == held

    def _add(self, message: AddRequest) -> None:
        try:
            failpoint("admit", message.request_id)
            self._check(message)
            if message.request_id in self.guides:
                raise InvalidRequest(
                    f"a request with the id {message.request_id!r} is in flight already", "request_id"
                )
            request = Request(message, next(self._seq), self.scheduler.max_model_len, self._eos_ids)
            self._admit(request)
            if message.params.guided:
                self._add_to_guides(request)
            else:
                self.scheduler.add(request)
        except InvalidRequest as error:
            self._refuse(message.request_id, error)
        except Exception as error:
            log.exception("request %s could not be added", message.request_id)
            self._pending.append(_internal_error(message.request_id, error))

    def _add_to_guides(self, request: Request) -> None:
        self.scheduler.check(request)
        self.guides.add(request)
        self._add_guided()  # its grammar may be known

    def _add_guided(self) -> None:
        """Queue the requests whose grammars are ready."""
        for request, error in self.guides.take():
            if error is None:
                self.scheduler.add(request)
            elif isinstance(error, InvalidRequest):
                self._refuse(request.id, error)
            else:
                self._pending.append(_internal_error(request.id, error))

    def _refuse(self, request_id: str, error: InvalidRequest) -> None:
        self._pending.append(_refused(request_id, error))

    def _admit(self, request: Request) -> None:
        self.runner.sampler.admit(request)

    def _check(self, message: AddRequest) -> None:
        """The front end has checked all this; but here a wrong token id would read foreign memory."""
        self._check_ids(message.prompt_token_ids)
        if message.pooling is not None:
            raise InvalidRequest("this model generates text; it gives no vectors", "model")
        vocab = self.runner.model.spec.vocab_size
        bias = message.params.logit_bias
        if bias and not (min(bias) >= 0 and max(bias) < vocab):
            raise InvalidRequest(f"token ids of logit_bias must be below {vocab}", "logit_bias")
        if message.params.n != 1 or message.params.seed is None:
            raise InvalidRequest("the engine takes single choices with a seed", "n")

    def _check_ids(self, ids: list[int]) -> None:
        vocab = self.runner.model.spec.vocab_size
        if ids and not (min(ids) >= 0 and max(ids) < vocab):
            raise InvalidRequest(f"token ids of the prompt must be between 0 and {vocab - 1}", "prompt")

    def _finish(self, requests: list[Request], sampled: Sampled, outputs: list[EngineOutput]) -> None:
        for i, request in enumerate(requests):
            error = sampled.errors.get(i)
            if error is None:
                output = self._emit(request, sampled.tokens[i], sampled.logprobs[i])
            elif i in sampled.refused:
                output = _refused(request.id, GrammarError(error))
            else:
                output = error_of(request.id, error)
            outputs.append(output)
            if output.finish_reason is not None:
                self._end(request)

    def _emit(self, request: Request, token: int, logprob: TokenLogprob | None) -> EngineOutput:
        try:
            failpoint("emit", request)
            self.scheduler.emit(request, token)
            return output_of(request, logprob, *end_of(request))
        except Exception as error:
            log.exception("request %s could not be given its token", request.id)
            return _internal_error(request.id, error)

    def _end(self, request: Request) -> None:
        try:
            failpoint("free", request)
            self.table.leave(request)
            self.scheduler.finish(request)
        except Exception:
            log.exception("request %s could not be ended; all others begin anew", request.id)
            self.scheduler.rebuild(gone=request)
            self.table.clear()

    def _contain(self, schedule: Schedule, error: Exception) -> list[EngineOutput]:
        log.error("a step of %d requests failed", len(schedule.requests), exc_info=error)
        squeezed = isinstance(error, MemoryError) and self._squeeze(schedule)
        culprit = None if squeezed else self.scheduler.blame(schedule)
        for request in schedule.preempted:
            self.table.leave(request)
        return self._convict(culprit, error)

    def _squeeze(self, schedule: Schedule) -> bool:
        """Free what is only kept for speed, and make steps smaller. False if they cannot be."""
        self.guides.compiler.forget()
        return self.scheduler.squeeze(schedule)

    def _start_over(self, error: Exception) -> list[EngineOutput]:
        """No step could be made. Whoever is to blame for it twice is ended."""
        if self.scheduler.at is None:
            raise error  # no request's: the engine's own
        log.error("scheduling failed; all requests begin anew", exc_info=error)
        culprit = self.scheduler.rebuild()
        self.table.clear()
        return self._convict(culprit, error)

    def _convict(self, culprit: Request | None, error: Exception) -> list[EngineOutput]:
        """End who is to blame, if that is known."""
        if culprit is None:
            return []
        log.error("request %s is to blame and is ended", culprit.id)
        self._end(culprit)
        return [_internal_error(culprit.id, error)]


def _internal_error(request_id: str, error: Exception) -> EngineOutput:
    """Its type alone: what it says may be about others."""
    return error_of(request_id, f"internal error: {type(error).__name__}")


def _refused(request_id: str, error: InvalidRequest) -> EngineOutput:
    return error_of(request_id, str(error), "InvalidRequest", param=error.param, code=error.code)
