"""Messages from the engine, as bytes, to a front end with requests in flight: each fails at most alone."""

from __future__ import annotations

import msgspec

from tenon.config import EngineArgs
from tenon.core.messages import EngineOutput, Failed, FromEngine, Loading, Outputs, Ready, TokenLogprob
from tenon.core.sampling import SamplingParams
from tenon.engine import oracle
from tenon.engine.frontend import Frontend

EXPECTED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
DICTIONARY = [msgspec.msgpack.encode(name) for name in EngineOutput.__struct_fields__]
DICTIONARY += [
    msgspec.msgpack.encode(v) for v in ("r/0", "r/1", "stop", "length", "abort", "error", -1, 2**63)
]
_READY = Ready(max_model_len=64, num_kv_blocks=8, block_size=32, vocab_size=260, load_seconds=0.0)
_CONFIG = EngineArgs(load_format="oracle").resolve()
_TOKENIZER = oracle.tokenizer()
_DECODE = msgspec.msgpack.Decoder(FromEngine).decode


def seeds() -> dict[str, bytes]:
    entry = TokenLogprob(104, -0.5, 1, [104, 105], [-0.5, -1.0])
    sent: dict[str, FromEngine] = {
        "text": Outputs(outputs=[EngineOutput(request_id="r/0", new_token_ids=[104, 105])]),
        "end": Outputs(outputs=[EngineOutput(request_id="r/0", new_token_ids=[104], finish_reason="stop")]),
        "both": Outputs(outputs=[EngineOutput(request_id=f"r/{i}", new_token_ids=[104]) for i in range(2)]),
        "logprobs": Outputs(
            outputs=[EngineOutput(request_id="r/0", new_token_ids=[104], new_logprobs=[entry])]
        ),
        "error": Outputs(outputs=[EngineOutput(request_id="r/0", finish_reason="error", error="no")]),
        "foreign": Outputs(outputs=[EngineOutput(request_id="x", new_token_ids=[1])]),
        "wild": Outputs(outputs=[EngineOutput(request_id="r/0", new_token_ids=[-1, 2**40, 259])]),
        "ready": _READY,
        "failed": Failed("ConfigError", "no"),
        "loading": Loading(1, 2),
    }
    return {label: msgspec.msgpack.encode(message) for label, message in sent.items()}


def run(data: bytes) -> None:
    message = _DECODE(data)
    if not isinstance(message, Outputs):
        return
    frontend = Frontend(_TOKENIZER, _READY, _CONFIG)
    params = SamplingParams(n=2, logprobs=2, stop=["hh"], seed=1)
    hit, _ = frontend.add("hi", params, request_id="r")
    other, _ = frontend.add("ho", params, request_id="q")
    frontend.apply(message)
    if hit.error is None:
        hit.snapshot()
    if not any(output.request_id.startswith("q/") for output in message.outputs):
        assert other.error is None
        assert not other.finished
