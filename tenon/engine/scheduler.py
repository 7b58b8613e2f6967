"""What the next step computes: `{request: number of tokens}`, under the step's budgets.

There are no phases. A request wants `len(tokens) - num_computed` tokens: one when it decodes, many when its
prompt is new or when it was preempted; it gets as many as the budget allows. Requests that run come first,
in order of rank, each with at least one token; then waiting ones are admitted while there is room, in the
order of `FairQueue`.

Blocks: a request is admitted with blocks for all of its known tokens (where layers see a window only, with as
many as it ever needs of these at a time), and one block for each request that runs stays free, so that it
does not drive others out at once. When blocks run out all the same, the last in rank loses its own and waits;
so for slots of recurrent state. The first in rank is therefore never preempted, and since no request is
admitted that could not fit alone, it always gets on: progress is certain.

Containment: when a step fails, `blame` makes its requests suspects. Suspects are computed one at a time until
they have emitted a token; one that makes a step fail alone is ended by the engine, the others go on. When
memory runs out in a step, `squeeze` makes steps smaller before anybody is blamed. When scheduling itself
fails, in the midst of changing queues and blocks, `rebuild` makes all that anew from the requests' tokens.

An encoder's sequences (`whole_sequences`) are computed in one step each, and hold nothing between steps: a
request that does not fit into what is left of the step waits for the next.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from tenon.cache.groups import Cache
from tenon.core.request import Request, State
from tenon.core.schedule import Budget, Schedule
from tenon.engine.pace import Pace
from tenon.engine.policy import POLICIES, FairQueue, Queue
from tenon.errors import InvalidRequest
from tenon.util.failpoint import failpoint

LEAST_TOKENS = 16  # a step that runs out of memory with so few does not get on with fewer
CALM_STEPS = 16  # steps within a lowered ceiling before it is doubled


class Scheduler:
    """Owns every unfinished request, and through `cache` all blocks."""

    def __init__(
        self,
        cache: Cache,
        *,
        max_num_batched_tokens: int,
        max_num_seqs: int,
        max_model_len: int,
        policy: str = "fcfs",
        whole_sequences: bool = False,
    ) -> None:
        assert not whole_sequences or max_model_len <= max_num_batched_tokens, "a sequence fits into a step"
        assert max_num_seqs <= max_num_batched_tokens, "every running request gets a token per step"
        self.cache = cache
        self.max_num_batched_tokens = max_num_batched_tokens
        self.max_num_seqs = max_num_seqs
        self.max_model_len = max_model_len
        self.whole_sequences = whole_sequences
        self._rank = POLICIES[policy]
        self.running = Queue(self._rank)
        self.waiting = FairQueue(self._rank)
        self.num_preemptions = 0
        self.pace: Pace | None = None  # bounds prompts' share of a step by time; None: by tokens alone
        self._requests: dict[str, Request] = {}
        self._num_suspects = 0
        self.at: Request | None = None  # whose part of the step `schedule` is deciding
        self._ceiling = max_num_batched_tokens  # of tokens in a step; lower after memory ran out
        self._calm = 0  # steps since then

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests.values())

    def get(self, request_id: str) -> Request | None:
        return self._requests.get(request_id)

    def add(self, request: Request) -> None:
        """Queue a request. Raises InvalidRequest for one that can never run."""
        self.check(request)
        self._requests[request.id] = request
        self.waiting.add(request)

    def check(self, request: Request) -> None:
        """Raises InvalidRequest for a request that can never run."""
        if request.id in self._requests:
            raise InvalidRequest(f"a request with the id {request.id!r} is in flight already", "request_id")
        if not request.num_prompt:
            raise InvalidRequest("the prompt is empty", "prompt")
        if request.num_prompt + (request.pooling is None) > self.max_model_len:
            raise InvalidRequest(
                f"the prompt has {request.num_prompt} tokens; with at least one to generate, this model's "
                f"context holds {self.max_model_len}",
                "prompt",
                "context_length_exceeded",
            )
        if request.max_total > self.cache.capacity:
            raise InvalidRequest(
                f"prompt and max_tokens need {request.max_total} tokens of KV cache; it holds "
                f"{self.cache.capacity}: lower max_tokens, or give the engine more --kv-cache-memory",
                "max_tokens",
                "context_exceeds_kv_capacity",
            )

    def finish(self, request: Request) -> None:
        """Take a request out, whatever its state; its blocks are free."""
        del self._requests[request.id]
        if request.state is State.RUNNING:
            self.running.remove(request)
            self.cache.release(request)
        else:
            self.waiting.remove(request)
        self._clear(request)
        request.state = State.FINISHED
        if not self._requests:
            self.waiting.forget()

    def schedule(self) -> Schedule:
        """Choose the next step. Blocks are allocated; `num_computed` advances when the step has run."""
        step = Schedule()
        self.at = None
        if self._num_suspects:
            self._isolate(step)
            return step
        tokens = self._budget()
        self._continue(step, tokens)
        if self.waiting and not step.preempted:
            self._admit(step, tokens)
        return step

    def advance(self, step: Schedule, seconds: float | None = None) -> None:
        """The step has run: its tokens are computed. `seconds` is what it took."""
        if self.pace is not None and seconds is not None:
            decoding = step.num_tokens.count(1)
            self.pace.observe(step.total_tokens - decoding, decoding, seconds)
        if self._ceiling < self.max_num_batched_tokens:
            self._relax()
        for request, num_tokens in zip(step.requests, step.num_tokens, strict=True):
            request.num_computed += num_tokens
        self.cache.settle(step.requests)

    def emit(self, request: Request, token: int) -> None:
        """A token was sampled for a request all of whose tokens are computed."""
        request.tokens.append(token)
        if request.suspect:
            self._clear(request)

    def blame(self, step: Schedule) -> Request | None:
        """The step failed. Returns the culprit if it ran alone; else all of it will run again, one by one."""
        self.cache.forget(step.fresh_blocks)
        if len(step.requests) == 1:
            return step.requests[0]
        for request in step.requests:
            self._preempt(request, step)
            self._suspect(request)
        return None

    def squeeze(self, step: Schedule) -> bool:
        """Memory ran out in this step: those after it are at most half as large, for a while. False if that
        has been tried, or cannot help: then somebody is to blame."""
        again = self._ceiling < self.max_num_batched_tokens and self._calm == 0
        alone = len(step.requests) == 1
        smallest = step.total_tokens <= LEAST_TOKENS or (alone and self.whole_sequences)
        if smallest or (again and not alone):
            return False
        self._ceiling, self._calm = step.total_tokens // 2, 0
        self.cache.forget(step.fresh_blocks)
        for request in step.requests:
            self._preempt(request, step)
        return True

    def rebuild(self, gone: Request | None = None) -> Request | None:
        """`schedule` or `finish` raised, and may have left anything half done: queues, blocks and the prefix
        cache begin anew, every request waits. `gone` is the request that was being ended.

        Returns the culprit, which is still here: the request `at`, if the same has happened to it before.
        """
        at, self.at = self.at, None
        if gone is not None:
            self._requests.pop(gone.id, None)
            gone.state, gone.row, at = State.FINISHED, -1, None
        self.cache.rebuild()
        self.running, self.waiting = Queue(self._rank), FairQueue(self._rank)
        for request in self:
            request.state, request.row = State.WAITING, -1
            request.lose_cache()
            self.waiting.add(request)
        self._num_suspects = sum(request.suspect for request in self)
        if at is None or at.suspect:
            return at
        self._suspect(at)
        return None

    def _budget(self) -> Budget:
        if self.whole_sequences:
            first = len(self.waiting.first.tokens) if self.waiting else 0
            return Budget(max(self._ceiling, first))
        ceiling = max(self._ceiling, len(self.running))
        if self.pace is None:
            return Budget(ceiling)
        decoding = sum(len(request.tokens) - request.num_computed == 1 for request in self.running)
        tokens = len(self.running) + self.pace.prompt_tokens(decoding)
        return Budget(min(tokens, ceiling))

    def _continue(self, step: Schedule, tokens: Budget) -> None:
        """Running requests, in order. Victims of preemption are at the end, not yet in the step."""
        running, index = self.running.in_order, 0
        while index < len(running):
            request = self.at = running[index]
            computed = request.num_computed
            num_tokens = len(request.tokens) - computed
            if num_tokens > 1:
                # Leave one token for each request behind this one.
                num_tokens = min(num_tokens, tokens.left - (len(running) - index - 1))
                num_tokens = self.cache.cut(request, num_tokens)
            needed = computed + num_tokens
            if needed > request.room and not self._make_room(request, needed, step):
                continue  # it was preempted itself: it was the last
            tokens.take(num_tokens)
            self._take(step, request, num_tokens)
            index += 1

    def _make_room(self, request: Request, num_tokens: int, step: Schedule) -> bool:
        """Blocks for `num_tokens` tokens of a running request, at the cost of the last ones in rank."""
        while not self.cache.grow(request, num_tokens):
            victim = self.running[-1]
            self._preempt(victim, step)
            if victim is request:
                return False
        step.grown.append(request)
        return True

    def _admit(self, step: Schedule, tokens: Budget) -> None:
        """Waiting requests, strictly in order: a big one in front is not overtaken until it starves."""
        while self.waiting and tokens.left and len(self.running) < self.max_num_seqs:
            request = self.at = self.waiting.first
            if self.whole_sequences and len(request.tokens) > tokens.left:
                break
            if not self._start(request, step, reserve=len(self.running)):
                break
            num_tokens = min(len(request.tokens) - request.num_computed, tokens.left)
            num_tokens = self.cache.cut(request, num_tokens)
            tokens.take(num_tokens)
            self._take(step, request, num_tokens)

    def _start(self, request: Request, step: Schedule, reserve: int) -> bool:
        if not self.cache.admit(request, self.cache.match(request), reserve):
            return False
        if request.arrival_time is not None:
            request.queued_seconds = time.monotonic() - request.arrival_time
            request.arrival_time = None  # waiting after a preemption is not counted
            step.begun.append(request)
        self.waiting.remove(request)
        self.running.add(request)
        request.state = State.RUNNING
        step.entered.append(request)
        return True

    def _take(self, step: Schedule, request: Request, num_tokens: int) -> None:
        failpoint("schedule", request)
        step.add(request, num_tokens)
        filled = request.num_computed + num_tokens
        self.waiting.charge(request, filled)
        if filled >= (len(request.chain) + 1) * self.cache.block_size:
            step.fresh_blocks += self.cache.commit(request, filled)

    def _isolate(self, step: Schedule) -> None:
        """The first suspect, alone."""
        suspect = next((r for r in self.running if r.suspect), None)
        if suspect is None:
            suspect = next(r for r in self.waiting if r.suspect)
            self.at = suspect
            while not (len(self.running) < self.max_num_seqs and self._start(suspect, step, reserve=0)):
                self._preempt(self.running[-1], step)
        self.at = suspect
        num_tokens = len(suspect.tokens) - suspect.num_computed
        if not self.whole_sequences:
            num_tokens = self.cache.cut(suspect, min(num_tokens, self._ceiling))
        needed = suspect.num_computed + num_tokens
        if needed <= suspect.room or self._make_room(suspect, needed, step):
            self._take(step, suspect, num_tokens)

    def _preempt(self, request: Request, step: Schedule) -> None:
        self.running.remove(request)
        self.cache.release(request)
        request.state = State.WAITING
        self.waiting.add(request)
        step.preempted.append(request)
        self.num_preemptions += 1

    def _relax(self) -> None:
        """A step has run within the lowered ceiling: after some more, it is raised again."""
        self._calm += 1
        if self._calm % CALM_STEPS == 0:
            self._ceiling = min(2 * self._ceiling, self.max_num_batched_tokens)

    def _suspect(self, request: Request) -> None:
        if not request.suspect:
            request.suspect = True
            self._num_suspects += 1

    def _clear(self, request: Request) -> None:
        if request.suspect:
            request.suspect = False
            self._num_suspects -= 1

    def check_integrity(self) -> None:
        """Assert every invariant of queues and blocks."""
        running, waiting = list(self.running), list(self.waiting)
        assert len(running) <= self.max_num_seqs
        assert {id(r) for r in running + waiting} == {id(r) for r in self}
        assert len(running) + len(waiting) == len(self), "a request is in two queues"
        for request in running:
            assert request.state is State.RUNNING
            assert 0 <= request.num_computed <= len(request.tokens)
        for request in waiting:
            assert request.state is State.WAITING
            assert not request.blocks
            assert request.num_computed == 0
        assert self._num_suspects == sum(r.suspect for r in self)
        self.cache.check_integrity(self)
