"""What becomes of a sampled token: it is emitted, and may end its request."""

from __future__ import annotations

from tenon.core.messages import EngineOutput, TokenLogprob
from tenon.core.request import Request
from tenon.core.schedule import Schedule


def end_of(request: Request) -> tuple[str | None, int | None]:
    """(finish reason, stop token) after the last emitted token; (None, None): it goes on.

    EOS and stop tokens count from `min_tokens` on (before, the sampler does not choose them), and where a
    grammar leaves nothing else.
    """
    token = request.tokens[-1]
    if (token in request.eos_ids or token in request.stop_ids) and _may_stop(request):
        return "stop", None if token in request.eos_ids else token
    if len(request.tokens) >= request.max_total:
        return "length", None
    return None, None


def _may_stop(request: Request) -> bool:
    must = request.guide is not None and request.guide.must_end
    return must or request.num_output > request.params.min_tokens


def started(step: Schedule, sampled: list[Request]) -> list[EngineOutput]:
    """The messages about requests that have begun to run and have no token to tell it with."""
    tell = set(map(id, step.begun)).difference(map(id, sampled)) if step.begun else ()
    return [
        EngineOutput(
            request_id=request.id,
            num_cached_tokens=max(request.num_cached, 0),
            queued_seconds=request.queued_seconds,
        )
        for request in step.begun
        if id(request) in tell
    ]


def output_of(
    request: Request, logprob: TokenLogprob | None, finish_reason: str | None, stop_reason: int | None
) -> EngineOutput:
    """The message about the token that was just emitted; the first one also tells of the prompt."""
    output = EngineOutput(
        request_id=request.id,
        new_token_ids=[request.tokens[-1]],
        finish_reason=finish_reason,
        stop_reason=stop_reason,
        num_cached_tokens=request.num_cached,
    )
    if logprob is not None:
        output.new_logprobs = [logprob]
    if len(request.tokens) == request.num_prompt + 1:
        output.queued_seconds = request.queued_seconds
        output.prompt_logprobs = request.prompt_logprobs
    return output


def error_of(
    request_id: str,
    error: str,
    kind: str | None = None,
    finish_reason: str = "error",
    param: str | None = None,
    code: str | None = None,
) -> EngineOutput:
    """The message that ends a request which cannot go on."""
    return EngineOutput(
        request_id=request_id,
        finish_reason=finish_reason,
        error=error,
        error_kind=kind,
        error_param=param,
        error_code=code,
    )
