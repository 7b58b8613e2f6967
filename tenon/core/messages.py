"""Messages between a front end and the engine. The same in one process and over a socket (msgpack)."""

from __future__ import annotations

import msgspec

from tenon.core.pooling import PoolingParams, PoolingSpec, Vectors
from tenon.core.sampling import SamplingParams


class AddRequest(msgspec.Struct, tag="add", kw_only=True, omit_defaults=True):
    """Run one choice of a request. `params.n` is 1 here: the front end fans out n choices.

    `params.seed` is set (the front end draws one) and `choice` is the choice's index, so that the
    sampler's key (seed, choice, position) does not depend on anything else.
    """

    request_id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    choice: int = 0
    eos_token_ids: list[int] = []  # that the tokenizer knows of, besides the model's own
    priority: int = 0  # lower runs first, under the priority policy
    background: bool = False  # runs after every request that is not, under any policy
    cache_salt: str = ""
    share: str = ""  # who sent it, for fairness: requests with the same one share what one gets
    arrival_time: float | None = None  # time.monotonic() of the front end
    pooling: PoolingParams | None = None  # a vector is wanted, not tokens; `params` say nothing then
    token_types: list[int] = []  # of an encoder's tokens, if they are not all of type 0


class Abort(msgspec.Struct, tag="abort"):
    request_ids: list[str]


class ResetPrefixCache(msgspec.Struct, tag="reset_prefix_cache"):
    pass


class Shutdown(msgspec.Struct, tag="shutdown"):
    pass


ToEngine = AddRequest | Abort | ResetPrefixCache | Shutdown


class TokenLogprob(msgspec.Struct, array_like=True):
    """Logprob of the chosen token and of the top ones, as ids and values (nats)."""

    token_id: int
    logprob: float
    rank: int
    top_ids: list[int]
    top_logprobs: list[float]


class EngineOutput(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """What one step produced for one request: the delta since the last output.

    The first one may hold no token: it says that the engine has taken the request up.
    """

    request_id: str
    new_token_ids: list[int] = []
    new_logprobs: list[TokenLogprob] | None = None
    prompt_logprobs: list[TokenLogprob] | None = None  # for prompt positions 1.., sent once, complete
    finish_reason: str | None = None
    stop_reason: int | None = None
    num_cached_tokens: int = 0
    queued_seconds: float = 0.0  # from arrival until it first ran; with the first output
    vectors: Vectors | None = None  # of a request for pooling
    error: str | None = None  # with finish_reason "error"
    error_kind: str | None = None  # class name of a `tenon.errors` type; None: an internal error
    error_param: str | None = None  # of an InvalidRequest: the field
    error_code: str | None = None


class EngineStats(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Gauges and counters of the engine, sent with outputs (counters are totals since start)."""

    num_requests_running: int = 0
    num_requests_waiting: int = 0
    kv_blocks_total: int = 0
    kv_blocks_used: int = 0
    prefix_cache_queries: int = 0  # tokens looked up
    prefix_cache_hits: int = 0  # tokens found
    num_preemptions: int = 0
    num_steps: int = 0


class Loading(msgspec.Struct, tag="loading"):
    """How far start-up has come, in bytes of weights. Sent now and then before `Ready`."""

    done: int
    total: int


class Ready(msgspec.Struct, tag="ready", kw_only=True):
    """Sent once, when the engine can take requests."""

    max_model_len: int
    num_kv_blocks: int
    block_size: int
    vocab_size: int
    load_seconds: float
    eos_token_ids: tuple[int, ...] = ()  # the model's own
    pooling: PoolingSpec | None = None  # of a model that gives vectors and no tokens
    info: dict[str, str | int | float] = {}  # for logs and `explain`: dtype, weight bytes ...


class Failed(msgspec.Struct, tag="failed"):
    """Sent once, when start-up failed; `kind` is the class name of a `tenon.errors` type."""

    kind: str
    message: str


class Outputs(msgspec.Struct, tag="outputs", kw_only=True):
    outputs: list[EngineOutput] = []
    stats: EngineStats | None = None


FromEngine = Loading | Ready | Failed | Outputs
