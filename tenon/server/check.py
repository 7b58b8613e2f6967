"""GET /health_generate: whether a model computes, not only whether its engine is there (as SGLang has it)."""

from __future__ import annotations

import time
from contextlib import aclosing

import msgspec

from tenon.core.pooling import PoolingParams
from tenon.core.sampling import SamplingParams
from tenon.engine.pooling_frontend import PoolingInput
from tenon.server.answer import generation
from tenon.server.call import Call
from tenon.server.contract import answers
from tenon.server.engine import Engine
from tenon.server.stream import merge

TOKEN = 1  # every vocabulary has it


class CheckQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    model: str | None = None


class Checked(msgspec.Struct, kw_only=True):
    status: str
    model: str
    seconds: float  # from the request to its result


@answers(Checked)
async def health_generate(call: Call) -> None:
    """One token is computed, or one vector, by a model (`?model=`; else the default one). It waits its turn,
    and is refused, as any request."""
    model, engine = await call.model(call.query(CheckQuery).model, vectors=None, choices=1)
    await (_token(call, engine) if engine.pooling is None else _vector(call, engine))
    await call.send_json(Checked(status="ok", model=model, seconds=round(time.monotonic() - call.arrival, 6)))


async def _token(call: Call, engine: Engine) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True, detokenize=False)
    run = generation(call, engine, "check", [TOKEN], params, 0, None)
    async with aclosing(merge([run])) as deltas:
        async for _ in deltas:
            pass


async def _vector(call: Call, engine: Engine) -> None:
    call.tokenised(1)
    await engine.pool(
        [PoolingInput([TOKEN])], PoolingParams(), f"check:{call.request_id}", on_start=call.spoke
    )
