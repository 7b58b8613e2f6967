"""POST /v1/chat/completions"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial

from msgspec import UNSET, UnsetType

from tenon.core.sampling import MAX_LOGPROBS
from tenon.server.answer import Head, generation, reply, wire_prompt_logprobs
from tenon.server.call import Call
from tenon.server.choices import Choices
from tenon.server.dialect import TEMPLATE_VARIABLES
from tenon.server.errors import bad_request
from tenon.server.logprobs import chat_logprobs
from tenon.server.prompt import chat_prompt, room
from tenon.server.schema.chat import (
    Answer,
    CallChunk,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChatRequest,
    ChunkChoice,
    Delta,
    Function,
    TokenLogprob,
    ToolCall,
)
from tenon.server.schema.sampling import sampling_params
from tenon.server.stream import Delta as TokenDelta
from tenon.server.stream import Generation, usage


async def create(call: Call, request: ChatRequest) -> None:
    """Render, generate, and send the answer in whole or in chunks."""
    request.refuse_unsupported()
    request.check_stream_options()
    model, engine = await call.model(request.model)
    top_logprobs = _top_logprobs(request)
    limits = {request.max_tokens, request.max_completion_tokens} - {None}
    if len(limits) > 1:
        raise bad_request(
            "max_tokens and max_completion_tokens mean the same and differ: give one", "max_completion_tokens"
        )
    limit_field = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    dialect = call.app.dialect(engine)
    tools = dialect.tools(request)
    allowed = TEMPLATE_VARIABLES.union(call.app.settings.template_variables)
    variables = dialect.variables(request, allowed)
    ids, tail = await chat_prompt(request, engine, call.body_size, tools, variables)
    params = sampling_params(
        request,
        call.app.settings.default_sampling,
        max_tokens=room(ids, engine, getattr(request, limit_field), limit_field),
        max_tokens_field=limit_field,
        logprobs=top_logprobs,
    )
    if dialect.keeps_special:
        params.skip_special_tokens = False
    head = Head.new("chatcmpl", model)
    run = generation(call, request, engine, head, 0, ids, params)
    choices = Choices(
        partial(dialect.parser, tools, tail, prefill(request)), call.app.settings.reasoning_content
    )
    await reply(call, bool(request.stream), chunks(request, head, run, choices), fold)


def prefill(request: ChatRequest) -> str:
    """What of the answer the prompt holds already."""
    content = request.messages[-1].content if request.continue_final_message else ""
    return content if isinstance(content, str) else ""


async def chunks(
    request: ChatRequest, head: Head, run: Generation, choices: Choices
) -> AsyncGenerator[ChatChunk, None]:
    """The answer as chunks: role, deltas, finish reasons, usage. Both kinds of answer come from here."""
    whole = not request.stream
    continuous = request.continuous_usage()
    no_usage: UnsetType | None = None if request.include_usage() else UNSET
    opened: set[int] = set()

    def chunk(choices: list[ChunkChoice]) -> ChatChunk:
        return ChatChunk(**head.fields(), choices=choices, usage=usage([run]) if continuous else no_usage)

    async with aclosing(run.deltas()) as deltas:
        async for delta in deltas:
            if delta.index not in opened:
                first = chunk([_opening(delta.index)])
                if not opened:
                    _add_prompt(first, request, run)
                opened.add(delta.index)
                yield first
            for choice in _choices(delta, request, run, choices):
                yield chunk([choice])
    if whole or request.include_usage():
        yield ChatChunk(**head.fields(), choices=[], usage=usage([run]))


def _opening(index: int) -> ChunkChoice:
    return ChunkChoice(
        index=index, delta=Delta(role="assistant", content=""), logprobs=None, finish_reason=None
    )


def _add_prompt(chunk: ChatChunk, request: ChatRequest, run: Generation) -> None:
    """What is said of the prompt goes with the first chunk."""
    if run.prompt_logprobs is not None:
        chunk.prompt_logprobs = wire_prompt_logprobs(run.prompt_logprobs)
    if request.return_token_ids:
        chunk.prompt_token_ids = run.prompt_token_ids


def _choices(delta: TokenDelta, request: ChatRequest, run: Generation, choices: Choices) -> list[ChunkChoice]:
    """One part of the message after the other; none while the tokens' text is held back.

    Logprobs and ids of the tokens go with the first part, the reason of the end with the last.
    """
    logprobs = None
    if request.logprobs and delta.token_ids:
        top = request.top_logprobs or 0
        logprobs = chat_logprobs(delta.token_ids, delta.logprobs, top, run.engine.tokenizer)
    token_ids = delta.token_ids if request.return_token_ids else UNSET
    parts, reason = choices.read(delta)
    if not parts and (logprobs or token_ids or reason):
        parts = [Delta()]
    out = [ChunkChoice(index=delta.index, delta=part, logprobs=None, finish_reason=None) for part in parts]
    if out:
        out[0].logprobs, out[0].token_ids = logprobs, token_ids
    if reason:
        out[-1].finish_reason, out[-1].stop_reason = reason, delta.stop_reason
    return out


@dataclass(slots=True)
class _Folded:
    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    reasoning_content: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    arguments: list[list[str]] = field(default_factory=list)  # of each call
    logprobs: list[TokenLogprob] | None = None
    token_ids: list[int] | UnsetType = UNSET
    finish_reason: str | None = None
    stop_reason: int | str | UnsetType | None = UNSET

    def add(self, choice: ChunkChoice) -> None:
        for name in ("content", "reasoning", "reasoning_content"):
            if text := getattr(choice.delta, name):
                getattr(self, name).append(text)
        for chunk in choice.delta.tool_calls or []:
            self._add_call(chunk)
        if choice.logprobs is not None:
            self.logprobs = self.logprobs or []
            self.logprobs.extend(choice.logprobs.content)
        if choice.token_ids is not UNSET:
            self.token_ids = [] if self.token_ids is UNSET else self.token_ids
            self.token_ids.extend(choice.token_ids)
        if choice.finish_reason is not None:
            self.finish_reason, self.stop_reason = choice.finish_reason, choice.stop_reason

    def _add_call(self, chunk: CallChunk) -> None:
        if chunk.id is not UNSET:
            assert chunk.function.name is not UNSET
            self.calls.append(
                ToolCall(id=chunk.id, function=Function(name=chunk.function.name, arguments=""))
            )
            self.arguments.append([])
        self.arguments[chunk.index].append(chunk.function.arguments)

    def choice(self, index: int) -> ChatChoice:
        return ChatChoice(
            index=index,
            message=self._message(),
            logprobs=None if self.logprobs is None else ChatLogprobs(content=self.logprobs),
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            token_ids=self.token_ids,
        )

    def _message(self) -> Answer:
        for call, fragments in zip(self.calls, self.arguments, strict=True):
            call.function.arguments = "".join(fragments)
        instead = self.reasoning or self.calls
        return Answer(
            content="".join(self.content) if self.content or not instead else None,
            reasoning="".join(self.reasoning) if self.reasoning else UNSET,
            reasoning_content="".join(self.reasoning_content) if self.reasoning_content else UNSET,
            tool_calls=self.calls or UNSET,
        )


async def fold(stream: AsyncGenerator[ChatChunk, None]) -> ChatCompletion:
    """The whole answer that a stream of chunks spells."""
    folded: dict[int, _Folded] = {}
    first = last = None
    async for chunk in stream:
        first, last = first or chunk, chunk
        for choice in chunk.choices:
            folded.setdefault(choice.index, _Folded()).add(choice)
    assert first is not None
    assert last is not None
    return ChatCompletion(
        id=first.id,
        created=first.created,
        model=first.model,
        system_fingerprint=first.system_fingerprint,
        choices=[folded[index].choice(index) for index in sorted(folded)],
        usage=None if last.usage is UNSET else last.usage,
        prompt_logprobs=first.prompt_logprobs,
        prompt_token_ids=first.prompt_token_ids,
    )


def _top_logprobs(request: ChatRequest) -> int | None:
    """SamplingParams.logprobs. Raises ApiError naming top_logprobs."""
    top = request.top_logprobs
    if top is not None and not 0 <= top <= MAX_LOGPROBS:
        raise bad_request(f"top_logprobs must be between 0 and {MAX_LOGPROBS}, not {top}", "top_logprobs")
    if top and not request.logprobs:
        raise bad_request("top_logprobs needs logprobs to be true", "top_logprobs")
    return (top or 0) if request.logprobs else None
