"""What chat and text completions have in common: identity of the answer, its generations, its reply."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec

from tenon.core.outputs import Logprob, TokenLogprobs
from tenon.core.sampling import SamplingParams
from tenon.server.auth import cache_salt
from tenon.server.call import Call
from tenon.server.engine import Engine
from tenon.server.logprobs import LOWEST
from tenon.server.probes import tenon_version
from tenon.server.schema.sampling import check_vocab
from tenon.server.stream import Generation


@dataclass(frozen=True, slots=True)
class Head:
    """Fields that every chunk of an answer carries."""

    id: str
    created: int
    model: str
    system_fingerprint: str

    @classmethod
    def new(cls, answer_id: str, model: str) -> Head:
        return cls(answer_id, int(time.time()), model, fingerprint(model))

    def fields(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.system_fingerprint,
        }


def new_id(prefix: str) -> str:
    return f"{prefix}{secrets.token_hex(16)}"


def fingerprint(model: str) -> str:
    """Equal fingerprints: the same seed gives the same answer."""
    return "fp_" + hashlib.sha256(f"{tenon_version()}/{model}".encode()).hexdigest()[:12]


def generation(
    call: Call,
    engine: Engine,
    request_id: str,
    prompt_token_ids: list[int],
    params: SamplingParams,
    priority: int,
    salt: str | None,
) -> Generation:
    """The run of one prompt, not yet started. `salt`: the request's. Raises InvalidRequest or ApiError."""
    check_vocab(params, engine.tokenizer.vocab_size)
    assert params.max_tokens is not None
    request_id = f"{request_id}:{call.request_id}"  # the engine's log lines name the HTTP request
    caller = "" if call.app.settings.share_prefix_cache else call.caller
    run = Generation(
        engine=engine,
        prompt_token_ids=prompt_token_ids,
        params=params,
        request_id=request_id,
        priority=priority,
        background=call.background,
        cache_salt=cache_salt(caller, salt),
        share=call.app.share_of(call.caller),
        on_start=call.taken_up,
        on_token=call.spoke,
        meter=call.app.metrics.of_model(engine.model_name).start(
            call.arrival, len(prompt_token_ids), params.n, params.max_tokens
        ),
        allowance=call.app.settings.limits.allowance,
    )
    call.generations.append(run)
    call.tokenised(len(prompt_token_ids))
    return run


async def reply(
    call: Call,
    stream: bool,
    chunks: AsyncGenerator[Any, None],
    fold: Callable[[AsyncGenerator[Any, None]], Awaitable[msgspec.Struct]],
) -> None:
    """Send the chunks as they come, or their fold at the end."""
    async with aclosing(chunks):
        if stream:
            await call.send_events(chunks)
        else:
            await call.send_json(await fold(chunks))


def wire_prompt_logprobs(entries: list[TokenLogprobs | None]) -> list[dict[str, Logprob] | None]:
    """Prompt logprobs as vLLM's API has them: token id to logprob, rank and text, per position."""
    return [None if entry is None else {str(i): _finite(p) for i, p in entry.items()} for entry in entries]


def _finite(value: Logprob) -> Logprob:
    return value if value.logprob >= LOWEST else msgspec.structs.replace(value, logprob=LOWEST)
