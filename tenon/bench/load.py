"""A load generator for servers with an OpenAI-compatible API, and what it measures.

Every time is taken from the moment a request is sent:
TTFT until its first streamed token, E2E until its last, TPOT = (E2E - TTFT) / (output tokens - 1),
ITL between one streamed chunk and the next.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tenon.bench.stats import summary
from tenon.util.http import Connection, HttpError, Target, error_message, events
from tenon.util.secret import Secret


@dataclass(frozen=True, slots=True)
class Load:
    """`prompts` are token ids (completions) or texts (chat). `request_rate` per second, or all at once."""

    target: Target
    model: str
    prompts: list[list[int]] | list[str]
    output_len: int
    request_rate: float | None = None
    max_concurrency: int | None = None
    ignore_eos: bool = False
    temperature: float = 0.0
    chat: bool = False
    api_key: Secret | None = None
    timeout_s: float = 600.0
    seed: int = 0


@dataclass(slots=True)
class Sample:
    """What happened to one request; times in seconds."""

    ttft: float = 0.0
    e2e: float = 0.0
    itl: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    error: str | None = None  # why it failed, in a few words
    detail: str = ""  # what was said about it


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


async def run(load: Load, progress: Callable[[], None] = lambda: None) -> tuple[list[Sample], float]:
    """Send every prompt; the samples in order, and the seconds from the first send to the last answer."""
    idle: list[Connection] = []
    gate = asyncio.Semaphore(load.max_concurrency or len(load.prompts))

    async def one(prompt: list[int] | str) -> Sample:
        async with gate:
            connection = idle.pop() if idle else Connection(load.target, load.api_key)
            try:
                return await _request(load, connection, prompt)
            finally:
                idle.append(connection)
                progress()

    draw = random.Random(load.seed)
    start = time.perf_counter()
    due = start
    tasks = []
    for prompt in load.prompts:
        if load.request_rate:
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            due += draw.expovariate(load.request_rate)
        tasks.append(asyncio.create_task(one(prompt)))
    samples = await asyncio.gather(*tasks)
    duration = time.perf_counter() - start
    for connection in idle:
        connection.close()
    return list(samples), duration


def _body(load: Load, prompt: list[int] | str) -> tuple[str, bytes]:
    """Path and JSON body of a request."""
    body: dict[str, Any] = {
        "model": load.model,
        "max_tokens": load.output_len,
        "temperature": load.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if load.ignore_eos:
        body["ignore_eos"] = True
    if load.chat:
        body["messages"] = [{"role": "user", "content": prompt}]
        return "/v1/chat/completions", msgspec.json.encode(body)
    body["prompt"] = prompt
    return "/v1/completions", msgspec.json.encode(body)


async def _request(load: Load, connection: Connection, prompt: list[int] | str) -> Sample:
    sample = Sample()
    path, body = _body(load, prompt)
    try:
        async with asyncio.timeout(load.timeout_s):
            await _measure(connection, path, body, sample)
    except TimeoutError:
        sample.error = f"no end after {load.timeout_s:g} s"
    except HttpError as error:
        sample.error, sample.detail = error.reason, error.message
    except OSError as error:
        sample.error, sample.detail = "no connection", str(error)
    except (msgspec.DecodeError, ValueError) as error:
        sample.error, sample.detail = "broken answer", str(error)
    return sample


async def _measure(connection: Connection, path: str, body: bytes, sample: Sample) -> None:
    """Stream one answer into `sample`. Raises HttpError when it does not end as an answer should."""
    finished = False
    chunks = 0
    start = last = time.perf_counter()
    async with aclosing(events(connection.stream("POST", path, body))) as stream:
        async for data in stream:
            now = time.perf_counter()
            chunk = _decode(data)
            if chunk.error is not None:
                raise HttpError(error_message(chunk.error), "error in the stream")
            if chunk.usage is not None:
                _count(chunk.usage, sample)
            if not chunk.choices:
                continue
            choice = chunk.choices[0]
            finished = finished or choice.finish_reason is not None
            if not _carries_token(choice):
                continue
            if chunks == 0:
                sample.ttft = now - start
            else:
                sample.itl.append(now - last)
            chunks += 1
            last = now
    if not finished:
        raise HttpError("the stream ended without a finish_reason")
    sample.e2e = last - start
    sample.output_tokens = sample.output_tokens or chunks


def _carries_token(choice: _Choice) -> bool:
    """False for a chat stream's opening chunk (role only) and for a closing chunk without text."""
    if choice.delta is not None:
        return bool(choice.delta.content or choice.delta.reasoning or choice.delta.tool_calls)
    return bool(choice.text) or choice.finish_reason is None


def _count(usage: _Usage, sample: Sample) -> None:
    sample.prompt_tokens = usage.prompt_tokens
    sample.output_tokens = usage.completion_tokens
    if usage.prompt_tokens_details is not None:
        sample.cached_tokens = usage.prompt_tokens_details.cached_tokens or 0


def first_failures(samples: list[Sample]) -> dict[str, str]:
    """For each reason why requests failed, what was said the first time."""
    details: dict[str, str] = {}
    for sample in samples:
        if sample.error is not None:
            details.setdefault(sample.error, sample.detail or "nothing more is known")
    return details


def figures(samples: list[Sample], duration: float) -> dict[str, Any]:
    """Rates and percentiles of a run, in milliseconds, tokens and seconds; failures are only counted."""
    good = [sample for sample in samples if sample.error is None]
    errors = Counter(sample.error for sample in samples if sample.error is not None)
    prompt_tokens = sum(sample.prompt_tokens for sample in good)
    output_tokens = sum(sample.output_tokens for sample in good)
    tpot = [(s.e2e - s.ttft) / (s.output_tokens - 1) for s in good if s.output_tokens > 1]
    return {
        "completed": len(good),
        "failed": len(samples) - len(good),
        "errors": dict(errors.most_common(5)),
        "duration_s": duration,
        "prompt_tokens": prompt_tokens,
        "cached_tokens": sum(sample.cached_tokens for sample in good),
        "output_tokens": output_tokens,
        "requests_per_s": len(good) / duration,
        "output_tokens_per_s": output_tokens / duration,
        "total_tokens_per_s": (prompt_tokens + output_tokens) / duration,
        **summary("ttft_ms", [1e3 * sample.ttft for sample in good]),
        **summary("tpot_ms", [1e3 * seconds for seconds in tpot]),
        **summary("itl_ms", [1e3 * gap for sample in good for gap in sample.itl]),
        **summary("e2e_ms", [1e3 * sample.e2e for sample in good]),
    }
