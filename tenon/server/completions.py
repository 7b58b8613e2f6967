"""POST /v1/completions"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from msgspec import UNSET, UnsetType

from tenon.server.answer import Head, generation, new_id, reply, wire_prompt_logprobs
from tenon.server.call import Call
from tenon.server.constraint import text_constraint
from tenon.server.contract import answers
from tenon.server.errors import not_supported
from tenon.server.logprobs import completion_logprobs
from tenon.server.prompt import completion_prompts, room, split_prompts
from tenon.server.schema.completion import (
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
)
from tenon.server.schema.sampling import sampling_params
from tenon.server.stream import Delta, Generation, merge, usage

DEFAULT_MAX_TOKENS = 16  # OpenAI's


@dataclass(slots=True)
class Run:
    """One prompt: its generation, and its text if it is to be echoed."""

    generation: Generation
    echo: str | None
    shows_output: bool  # False for `echo` with `max_tokens` 0: only the prompt is of interest


@answers(Completion, events=Completion)
async def create(call: Call, request: CompletionRequest) -> None:
    """Generate for every prompt, and send the answer in whole or in chunks."""
    request.refuse_unsupported()
    request.check_stream_options()
    outputs = text_constraint(request.response_format, request.structured_outputs, call.app.settings.limits)
    if request.best_of is not None and request.best_of != (request.n or 1):
        raise not_supported("best_of")
    given, n = split_prompts(request.prompt), request.n or 1
    limits = call.app.settings.limits
    limits.hold("sequences", len(given) * n, "prompt" if n == 1 else "n")
    model, engine = await call.model(request.model, choices=len(given) * n)
    head = Head.new(new_id("cmpl-"), model)
    prompts = await completion_prompts(request, given, engine, call.app.settings)
    shows_output = not (request.echo and request.max_tokens == 0)
    runs = []
    for position, (text, ids) in enumerate(prompts):
        wanted = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
        if request.max_tokens is None:
            wanted = min(wanted, room(ids, engine, None, "max_tokens"))
        params = sampling_params(
            request.sampling() | {"structured_outputs": outputs},
            call.app.settings.default_sampling,
            max_tokens=room(ids, engine, wanted if shows_output else 1, "max_tokens"),
            logprobs=request.logprobs,
        )
        assert params.max_tokens is not None
        limits.hold("generated_tokens", len(prompts) * n * params.max_tokens, "max_tokens")
        if request.echo and request.logprobs is not None and params.prompt_logprobs is None:
            params.prompt_logprobs = request.logprobs
        echo = None
        if request.echo:
            echo = engine.tokenizer.decode(ids, params.skip_special_tokens) if text is None else text
        request_id, priority = f"{head.id}-{position}", request.priority or 0
        run = generation(call, engine, request_id, ids, params, priority, request.cache_salt)
        if request.response_format is not None:
            run.grammar_from = "response_format"
        runs.append(Run(run, echo, shows_output))
    await reply(call, bool(request.stream), chunks(request, head, runs), fold)


async def chunks(request: CompletionRequest, head: Head, runs: list[Run]) -> AsyncGenerator[Completion, None]:
    """The answer as chunks. Choice `c` of prompt `p` has the index `p * n + c`."""
    n = request.n or 1
    continuous = request.continuous_usage()
    no_usage: UnsetType | None = None if request.include_usage() else UNSET
    offsets: dict[int, int] = {}  # characters of logprob tokens sent so far, by choice index
    generations = [run.generation for run in runs]

    async with aclosing(merge(generations)) as deltas:
        async for position, delta in deltas:
            index = position * n + delta.index
            for choice in _choices(request, runs[position], delta, index, offsets):
                yield Completion(
                    **head.fields(),
                    choices=[choice],
                    usage=_usage(runs) if continuous else no_usage,
                )
    if not request.stream or request.include_usage():
        yield Completion(**head.fields(), choices=[], usage=_usage(runs))


def _usage(runs: list[Run]):
    counts = usage([run.generation for run in runs])
    if not runs[0].shows_output:
        counts.total_tokens -= counts.completion_tokens
        counts.completion_tokens = 0
    return counts


def _choices(
    request: CompletionRequest, run: Run, delta: Delta, index: int, offsets: dict[int, int]
) -> list[CompletionChoice]:
    """Zero to two parts of a choice: the echoed prompt before its first delta, and the delta."""
    parts = []
    if index not in offsets:
        offsets[index] = 0
        if (opening := _opening(request, run, index, offsets)) is not None:
            parts.append(opening)
    if not run.shows_output:
        delta = Delta(delta.index, "", [], [], delta.finish_reason and "length", None)
    logprobs = None
    if request.logprobs is not None and delta.token_ids:
        logprobs = _logprobs(run, delta.token_ids, delta.logprobs, index, offsets)
    token_ids = delta.token_ids if request.return_token_ids else UNSET
    if delta.text or logprobs or token_ids or delta.finish_reason:
        parts.append(
            CompletionChoice(
                index=index,
                text=delta.text,
                logprobs=logprobs,
                finish_reason=delta.finish_reason,
                stop_reason=delta.stop_reason if delta.finish_reason else UNSET,
                token_ids=token_ids,
            )
        )
    return parts


def _opening(
    request: CompletionRequest, run: Run, index: int, offsets: dict[int, int]
) -> CompletionChoice | None:
    """What is said of the prompt, if anything."""
    of = run.generation
    logprobs = None
    if run.echo is not None and request.logprobs is not None and of.prompt_logprobs is not None:
        logprobs = _logprobs(run, of.prompt_token_ids, of.prompt_logprobs, index, offsets)
    if run.echo is None and request.prompt_logprobs is None and not request.return_token_ids:
        return None
    choice = CompletionChoice(index=index, text=run.echo or "", logprobs=logprobs, finish_reason=None)
    if request.return_token_ids:
        choice.prompt_token_ids = of.prompt_token_ids
    if request.prompt_logprobs is not None and of.prompt_logprobs is not None:
        choice.prompt_logprobs = wire_prompt_logprobs(of.prompt_logprobs)
    return choice


def _logprobs(
    run: Run, ids: list[int], entries: list, index: int, offsets: dict[int, int]
) -> CompletionLogprobs:
    logprobs = completion_logprobs(ids, entries, offsets[index], run.generation.engine.tokenizer)
    offsets[index] = logprobs.text_offset[-1] + len(logprobs.tokens[-1])
    return logprobs


@dataclass(slots=True)
class _Folded:
    text: list[str] = field(default_factory=list)
    choice: CompletionChoice | None = None

    def add(self, part: CompletionChoice) -> None:
        self.text.append(part.text)
        whole = self.choice
        if whole is None:
            self.choice = part
            return
        if whole.logprobs is None:
            whole.logprobs = part.logprobs
        elif part.logprobs is not None:
            _extend(whole.logprobs, part.logprobs)
        if part.token_ids is not UNSET:
            whole.token_ids = [] if whole.token_ids is UNSET else whole.token_ids
            whole.token_ids.extend(part.token_ids)
        if part.finish_reason is not None:
            whole.finish_reason, whole.stop_reason = part.finish_reason, part.stop_reason

    def whole(self) -> CompletionChoice:
        assert self.choice is not None
        self.choice.text = "".join(self.text)
        return self.choice


def _extend(head: CompletionLogprobs, tail: CompletionLogprobs) -> None:
    for name in CompletionLogprobs.__struct_fields__:
        getattr(head, name).extend(getattr(tail, name))


async def fold(stream: AsyncGenerator[Completion, None]) -> Completion:
    """The whole answer that a stream of chunks spells."""
    choices: dict[int, _Folded] = {}
    last = None
    async for chunk in stream:
        last = chunk
        for part in chunk.choices:
            choices.setdefault(part.index, _Folded()).add(part)
    assert last is not None  # at least the usage
    last.choices = [folded.whole() for _, folded in sorted(choices.items())]
    return last
