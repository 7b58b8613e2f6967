"""Messages on the engine's socket, as bytes: decoded, handled, and every request answered exactly once."""

from __future__ import annotations

import msgspec

from tenon.core.messages import Abort, AddRequest, ResetPrefixCache, Shutdown, ToEngine
from tenon.core.pooling import PoolingParams
from tenon.core.sampling import SamplingParams
from tenon.core.structured import StructuredOutputs
from tenon.engine.worker import Inbox
from tests.engine.simulation import make_engine

EXPECTED: tuple[type[Exception], ...] = ()
SECONDS = 3.0
_NAMES = {*AddRequest.__struct_fields__, *SamplingParams.__struct_fields__, *Abort.__struct_fields__}
DICTIONARY = [msgspec.msgpack.encode(word) for word in sorted(_NAMES | {"add", "abort", "r", "type"})]
DICTIONARY += [
    msgspec.msgpack.encode(value) for value in (None, -1, 2**63, 2**64 - 1, 1e308, [], {}, "", b"")
]
DICTIONARY += [
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
]
_ENGINE = make_engine()
_STEPS = 400


class _Socket:
    """One frame."""

    def __init__(self, frame: bytes) -> None:
        self._frames = [frame]

    def poll(self, timeout: int) -> int:
        return len(self._frames)

    def recv(self) -> bytes:
        return self._frames.pop()


def seeds() -> dict[str, bytes]:
    def add(**fields: object) -> AddRequest:
        params = fields.pop("params", SamplingParams(seed=1, max_tokens=4))
        return AddRequest(request_id="r", prompt_token_ids=[1, 2, 5], params=params, **fields)  # type: ignore

    sampled = SamplingParams(
        seed=7, temperature=0.7, top_k=5, top_p=0.9, min_p=0.1, presence_penalty=1.0, repetition_penalty=1.5,
        logit_bias={3: -1.0}, min_tokens=2, max_tokens=5, stop_token_ids=[4], logprobs=2, prompt_logprobs=1,
    )  # fmt: skip
    guided = SamplingParams(seed=1, max_tokens=3, structured_outputs=StructuredOutputs(regex="[a-z]+"))
    messages: dict[str, list[ToEngine]] = {
        "one": [add()],
        "sampled": [add(params=sampled, cache_salt="s", priority=-2, background=True)],
        "twice": [add(), add()],
        "abort": [add(), Abort(["r", "x"])],
        "reset": [add(), ResetPrefixCache()],
        "shutdown": [Shutdown()],
        "pooling": [add(pooling=PoolingParams())],
        "guided": [add(params=guided)],
        "empty": [],
    }
    frames = {label: msgspec.msgpack.encode(sent) for label, sent in messages.items()}
    wild = msgspec.to_builtins(add())
    for field, value in {
        "prompt_token_ids": [-1, 2**31, 2**63], "request_id": 3, "choice": -1, "eos_token_ids": [2**40, -5],
        "token_types": [9], "arrival_time": -1e300, "priority": 2**62,
    }.items():  # fmt: skip
        frames[f"wild {field}"] = msgspec.msgpack.encode([wild | {field: value}])
    frames["long prompt"] = msgspec.msgpack.encode([wild | {"prompt_token_ids": [1] * 200}])
    frames["no prompt"] = msgspec.msgpack.encode([wild | {"prompt_token_ids": []}])
    frames["deep"] = b"\x91" * 3000
    return frames


def run(data: bytes) -> None:
    ended: list[str] = []
    refused: list[str] = []

    def refuse(request_id: str, reason: str) -> None:
        refused.append(request_id)
        _ENGINE.refuse(request_id, reason)

    added = []
    for message in Inbox(_Socket(data), refuse, lambda: None).drain():  # type: ignore[arg-type]
        if isinstance(message, AddRequest):
            added.append(message.request_id)
        _ENGINE.handle(message)
    for _ in range(_STEPS):
        if not _ENGINE.has_work:
            break
        ended += [output.request_id for output in _ENGINE.step().outputs if output.finish_reason is not None]
    assert not _ENGINE.has_work, "the engine does not come to an end"
    _ENGINE.check_integrity()
    assert _ENGINE.stats().kv_blocks_used == 0
    answers = sorted([*added, *refused])
    assert len(ended) <= len(answers), "more answers than requests"
    assert set(ended) <= set(answers)
