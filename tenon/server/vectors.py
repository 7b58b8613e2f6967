"""What the endpoints of vectors and scores share: inputs to tokens, one run of the engine, the usage."""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tenon.core.outputs import PoolingRequestOutput
from tenon.core.pooling import PoolingParams, PoolingSpec
from tenon.engine.jobs.work import Pair
from tenon.engine.pooling_frontend import PoolingInput, encode_input, token_limit
from tenon.errors import InvalidRequest
from tenon.server.auth import cache_salt
from tenon.server.call import Call
from tenon.server.engine import Engine
from tenon.server.errors import bad_request
from tenon.server.prompt import INLINE_CHARS, check_token_ids, in_thread
from tenon.server.schema.pooling import (
    ClassifyRequest,
    Input,
    PoolingFields,
    PoolingRequest,
    RerankRequest,
    ScoreRequest,
    VectorList,
    VectorUsage,
)

ENCODINGS = ("float", "base64")


class Run:
    """One request's model, and what it makes of inputs. `prefix` begins the answer's id."""

    def __init__(self, call: Call, request: PoolingFields, model: str, engine: Engine, prefix: str) -> None:
        assert engine.pooling is not None
        self.call = call
        self.request = request
        self.model = model
        self.engine = engine
        self.spec: PoolingSpec = engine.pooling
        self.id = f"{prefix}-{secrets.token_hex(16)}"
        self.num_tokens = 0
        self._running = False

    @classmethod
    async def begin(cls, call: Call, request: PoolingFields, prefix: str) -> Run:
        """Raises 404, 503, or 400 for a model that generates."""
        model, engine = await call.model(request.model, vectors=True, choices=1)
        return cls(call, request, model, engine, prefix)

    async def pool(
        self, inputs: Sequence[tuple[Any, ...]], params: PoolingParams, name: str
    ) -> list[PoolingRequestOutput]:
        """The results of inputs, each a text, two texts or token ids; `name` is their field, for messages.

        Raises InvalidRequest or ApiError.
        """
        if not inputs:
            raise bad_request(f"{name} must not be empty", name)
        params.check(self.spec)
        request, engine = self.request, self.engine
        limit = token_limit(request.truncate_prompt_tokens, engine.max_model_len)
        encoded = []
        for index, given in enumerate(inputs):
            where = f"{name}[{index}]" if len(inputs) > 1 else name
            encoded.append(await self._encode(given, limit, where))
        self.num_tokens = sum(len(given.token_ids) for given in encoded)
        self.call.tokenised(self.num_tokens)
        caller = "" if self.call.app.settings.share_prefix_cache else self.call.caller
        results = await engine.pool(
            encoded,
            params,
            self.id,
            priority=request.priority or 0,
            background=self.call.background,
            cache_salt=cache_salt(caller, request.cache_salt),
            share=self.call.app.share_of(self.call.caller),
            name=name,
            on_start=self._started,
        )
        self.call.app.metrics.of_model(engine.model_name).pooled(self.call.arrival, self.num_tokens)
        return results

    def _started(self) -> None:
        """The engine has taken an input up. There is no first token: the answer comes as a whole."""
        if not self._running:
            self._running = True
            self.call.taken_up(1)
            self.call.spoke()

    async def _encode(self, given: tuple[Any, ...], limit: int | None, name: str) -> PoolingInput:
        special = self.request.add_special_tokens is not False
        if not isinstance(given[0], str):
            check_token_ids(given[0], self.engine.tokenizer.vocab_size, name)
        if not isinstance(given[0], str) or sum(map(len, given)) <= INLINE_CHARS:
            await asyncio.sleep(0)  # of many inputs each is short, but all of them may not be
            return encode_input(
                self.engine.tokenizer, *given, limit=limit, add_special_tokens=special, name=name
            )
        text, second = (*given, None)[:2]
        job = Pair(text, second, limit, special)
        try:
            done = await self.engine.jobs.run(job, self.call.app.settings.limits.allowance)
        except InvalidRequest as error:
            message = str(error).removeprefix("prompt: ")
            raise InvalidRequest(f"{name}: {message}", name, error.code) from None
        return PoolingInput(done.ids, done.types)

    @property
    def usage(self) -> VectorUsage:
        return VectorUsage(prompt_tokens=self.num_tokens, total_tokens=self.num_tokens)

    async def send_vectors(
        self, results: list[PoolingRequestOutput], of: Callable[..., msgspec.Struct]
    ) -> None:
        """An answer of `of(index=, ...)` for each result, made in a thread if it is long: number by number
        text is made of them, and nobody else is to wait for that."""

        def work() -> list[msgspec.Raw]:
            return [
                msgspec.Raw(msgspec.json.encode(of(index, result))) for index, result in enumerate(results)
            ]

        await self.send(await in_thread(sum(result.outputs.data.size for result in results), work))

    async def send(self, data: list[Any]) -> None:
        await self.call.send_json(
            VectorList(id=self.id, created=int(time.time()), model=self.model, data=data, usage=self.usage)
        )


def split_inputs(given: Input) -> list[tuple[Any, ...]]:
    """The shapes of `input` as a list of inputs. Raises ApiError."""
    if isinstance(given, str):
        return [(given,)]
    if not given:
        raise bad_request("input must not be empty", "input")
    kinds = {type(item) for item in given}
    if len(kinds) > 1:
        raise bad_request("input must not mix text and token ids", "input")
    return [(given,)] if kinds == {int} else [(item,) for item in given]


def wants_base64(encoding_format: str | None) -> bool:
    """Raises ApiError for a format that is not known."""
    if encoding_format not in (None, *ENCODINGS):
        raise bad_request(f"encoding_format must be one of {', '.join(ENCODINGS)}", "encoding_format")
    return encoding_format == "base64"


def on_the_wire(data: Any, as_base64: bool) -> Any:
    """An array of float32 as numbers, or as base64 of its little-endian bytes."""
    if as_base64:
        return base64.b64encode(data.astype("<f4").tobytes()).decode()
    if data.ndim > 1:  # row by row: a thread lets others run between two
        return [msgspec.Raw(msgspec.json.encode(row.tolist())) for row in data]
    return data.tolist()


def activation_of(request: PoolingRequest | ClassifyRequest | ScoreRequest | RerankRequest) -> bool | None:
    return request.activation if request.use_activation is None else request.use_activation
