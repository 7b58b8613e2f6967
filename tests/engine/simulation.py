"""Engines around the oracle model, and the right answer to every request, computed without any engine."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from tenon import ops
from tenon.config import EngineArgs
from tenon.core.messages import Abort, AddRequest, EngineOutput, TokenLogprob
from tenon.core.sampling import SamplingParams
from tenon.core.spec import KVGroup, StateArray
from tenon.engine import oracle
from tenon.engine.engine import Engine
from tenon.engine.loader import build_engine
from tenon.engine.oracle import answer_logits


def make_engine(
    *,
    num_blocks=64,
    block_size=4,
    max_model_len=None,
    vocab=50,
    eos=(3,),
    max_position=96,
    groups=oracle.FULL,
    **args,
) -> Engine:
    """An engine with a small pool; block sizes below 32 are for tests only, so they bypass the checks."""
    model = oracle.Oracle(vocab, max_position, eos, groups)
    state_bytes = model.spec.state_bytes_per_slot
    config = EngineArgs(load_format="oracle", **args).resolve()
    config = msgspec.structs.replace(
        config,
        block_size=block_size,
        kv_cache_memory=num_blocks * block_size * 8 * (2 if state_bytes else 1),
        max_model_len=max_model_len,
    )
    engine = build_engine(model, config)
    assert state_bytes or engine.ready.num_kv_blocks <= num_blocks
    return engine


def window(length: int) -> KVGroup:
    return KVGroup("full", 1, 1, 8, window=length)


def chunk(length: int) -> KVGroup:
    return KVGroup("full", 1, 1, 8, local_chunk=length)


def large_state(num_bytes: int) -> KVGroup:
    """So that few fit into half of the memory of the cache."""
    return KVGroup("state", 1, arrays=(StateArray((num_bytes // 4,)),))


def window_or_chunk(rng: random.Random) -> KVGroup:
    length = rng.choice([0, rng.randint(1, 30)])
    return KVGroup("full", 1, 1, 8, window=length, local_chunk=rng.choice([0, 4, 10]))


def random_groups(rng: random.Random) -> tuple[KVGroup, ...]:
    """Any mix of what layers may see, and of how they share blocks; states come last."""
    bounds = [window_or_chunk(rng) for _ in range(3)]
    groups = [replace(group, parts=rng.choice([1, 1, 2, 3])) for group in (KVGroup("full", 1, 1, 8), *bounds)]
    states = rng.choice([(), (), (oracle.STATE,), (large_state(rng.choice([24, 48])),)])
    return (*rng.sample(groups, rng.randint(1, 4)), *states)


def right_answer(add: AddRequest, engine: Engine) -> tuple[list[int], str, int | None]:
    """(tokens, finish reason, stop reason): a pure function of the request and the engine's limits."""
    spec, params = engine.runner.model.spec, add.params
    tokens, stops = list(add.prompt_token_ids), set(params.stop_token_ids or ())
    eos = set() if params.ignore_eos else set(spec.eos_token_ids)
    limit = engine.scheduler.max_model_len - len(tokens)
    limit = min(limit, params.max_tokens or limit)
    new: list[int] = []
    while True:
        logits_V = answer_logits(tokens, spec.vocab_size, spec.kv_groups)[-1].copy()
        edit(logits_V, add, new, (eos | stops) if len(new) < params.min_tokens else set())
        token = int(
            # The kernel, whose rows do not depend on each other: its reference, in double precision, draws
            # another token where the random number is within rounding of the border between two.
            ops.sample(
                logits_V[None],
                np.array([params.temperature], np.float32),
                np.array([params.top_k], np.int32),
                np.array([params.top_p], np.float32),
                np.array([params.min_p], np.float32),
                np.array([params.seed], np.uint64),
                np.array([add.choice], np.int32),
                np.array([len(tokens)], np.int64),
            )[0]
        )
        tokens.append(token)
        new.append(token)
        if token in eos:
            return new, "stop", None
        if token in stops:
            return new, "stop", token
        if len(new) == limit:
            return new, "length", None


def edit(logits_V: np.ndarray, add: AddRequest, new: list[int], banned: set[int]) -> None:
    """Bias, bans, penalties, the plain way."""
    params, counts = add.params, Counter(new)
    for token, bias in (params.logit_bias or {}).items():
        logits_V[token] += np.float32(bias)
    for token in banned:
        if token < len(logits_V):
            logits_V[token] = -np.inf
    for token in set(add.prompt_token_ids) | set(new):
        value, penalty = logits_V[token], np.float32(params.repetition_penalty)
        value = value / penalty if value > 0 else value * penalty
        value -= np.float32(params.frequency_penalty) * np.float32(counts[token])
        value -= np.float32(params.presence_penalty) * np.float32(counts[token] > 0)
        logits_V[token] = value


def random_params(rng: random.Random, vocab: int, max_tokens: int) -> SamplingParams:
    """Anything a request may ask of the sampler."""
    length = rng.randint(1, max_tokens)
    params = {"max_tokens": length, "seed": rng.randrange(2**64), "temperature": 0.0}
    if rng.random() < 0.6:
        params |= {
            "temperature": rng.choice([0.3, 1.0, 2.0]),
            "top_k": rng.choice([0, 1, 5]),
            "top_p": rng.choice([1.0, 0.8]),
            "min_p": rng.choice([0.0, 0.05]),
        }
    if rng.random() < 0.2:
        params["stop_token_ids"] = [rng.randrange(vocab + 5) for _ in range(3)]
    if rng.random() < 0.2:
        params["min_tokens"] = rng.randint(0, length)
    if rng.random() < 0.2:
        params["ignore_eos"] = True
    if rng.random() < 0.15:
        params["logit_bias"] = {rng.randrange(vocab): rng.uniform(-5, 5) for _ in range(4)}
    if rng.random() < 0.15:
        params |= {"repetition_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": -0.3}
    if rng.random() < 0.15:
        params["logprobs"] = rng.randint(0, 4)
    if rng.random() < 0.1:
        params["prompt_logprobs"] = rng.randint(0, 3)
    return SamplingParams(**params)


@dataclass
class Answer:
    """What came out of the engine for one request."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprob] | None = None
    finish_reason: str | None = None
    stop_reason: int | None = None
    error: str | None = None
    num_cached_tokens: int = 0

    def take(self, output: EngineOutput) -> None:
        assert self.finish_reason is None, f"an output after the last: {output}"
        self.tokens += output.new_token_ids
        self.logprobs += output.new_logprobs or []
        if output.prompt_logprobs is not None:
            assert self.prompt_logprobs is None, "prompt logprobs came twice"
            self.prompt_logprobs = output.prompt_logprobs
        self.finish_reason, self.stop_reason = output.finish_reason, output.stop_reason
        self.error = output.error
        self.num_cached_tokens = output.num_cached_tokens


class Simulation:
    """Requests that are added to an engine, and their answers, checked against the right ones."""

    def __init__(self, engine: Engine, names: str = "", *, faults: bool = False) -> None:
        self.engine = engine
        self.names = names  # what the ids of requests begin with
        self.faults = faults  # steps may fail: not every one gets on
        self.adds: dict[str, AddRequest] = {}
        self.answers: dict[str, Answer] = {}
        self.aborted: set[str] = set()

    def add(self, prompt: list[int], params: SamplingParams, **fields) -> str:
        request_id = f"{self.names}{len(self.adds)}"
        add = AddRequest(request_id=request_id, prompt_token_ids=prompt, params=params, **fields)
        self.adds[request_id] = add
        self.answers[request_id] = Answer()
        self.engine.handle(add)
        return request_id

    def abort(self, request_id: str) -> None:
        self.engine.handle(Abort([request_id]))
        if self.answers[request_id].finish_reason is None:
            self.aborted.add(request_id)

    def step(self) -> None:
        scheduler = self.engine.scheduler
        first = scheduler.running[0] if len(scheduler.running) else None
        before = first and first.num_computed
        busy = len(scheduler)
        outputs = self.engine.step().outputs
        for output in outputs:
            assert output.request_id not in self.aborted, "an output of an aborted request"
            self.answers[output.request_id].take(output)
        if self.faults or self.engine.runner.model.fail is not None:
            return
        # Liveness: the first in rank always gets on; work that exists is worked on.
        if first is not None and first in list(scheduler.running):
            assert first.num_computed > before
        if busy and not outputs:
            assert any(request.num_computed for request in scheduler), "no progress"

    def run(self, check_every: int = 1, max_steps: int = 10_000) -> None:
        """Until there is nothing left to do."""
        for number in range(max_steps):
            if not self.engine.has_work:
                break
            self.step()
            if number % check_every == 0:
                self.engine.check_integrity()
        assert not self.engine.has_work, "the engine does not get done"

    def check(self, failed: Collection[str] = ()) -> None:
        """Every answer is right but those that `failed`, and nothing is left behind."""
        self.engine.check_integrity()
        assert self.engine.stats().kv_blocks_used == 0
        assert self.engine.table.num_rows == 0
        for request_id, answer in self.answers.items():
            if request_id in failed:
                self._check_failed(self.adds[request_id], answer)
            else:
                self._check_one(self.adds[request_id], answer, request_id in self.aborted)

    def _check_failed(self, add: AddRequest, answer: Answer) -> None:
        """What it was given before the error was right."""
        assert answer.finish_reason == "error"
        assert answer.error
        tokens, _, _ = right_answer(add, self.engine)
        assert answer.tokens == tokens[: len(answer.tokens)], add

    def _check_one(self, add: AddRequest, answer: Answer, aborted: bool) -> None:
        tokens, finish_reason, stop_reason = right_answer(add, self.engine)
        if aborted:
            assert answer.tokens == tokens[: len(answer.tokens)], add
            assert answer.finish_reason is None
            return
        assert answer.error is None, answer.error
        assert answer.tokens == tokens, add
        assert (answer.finish_reason, answer.stop_reason) == (finish_reason, stop_reason), add
        whole = add.prompt_token_ids + tokens
        spec = self.engine.runner.model.spec
        logits_CV = answer_logits(whole, spec.vocab_size, spec.kv_groups)
        if (top_n := add.params.logprobs) is not None:
            check_logprobs(answer.logprobs, logits_CV[len(add.prompt_token_ids) - 1 : -1], tokens, top_n)
        if (top_n := add.params.prompt_logprobs) is not None:
            count = len(add.prompt_token_ids) - 1
            check_logprobs(answer.prompt_logprobs, logits_CV[:count], whole[1 : count + 1], top_n)


def check_logprobs(got: list[TokenLogprob], logits_CV: np.ndarray, tokens: list[int], top_n: int) -> None:
    assert [entry.token_id for entry in got] == tokens
    shifted_CV = logits_CV.astype(np.float64) - logits_CV.max(axis=1, keepdims=True)
    expected_CV = shifted_CV - np.log(np.exp(shifted_CV).sum(axis=1, keepdims=True))
    for entry, row_V in zip(got, expected_CV, strict=True):
        assert abs(entry.logprob - row_V[entry.token_id]) < 1e-4
        assert entry.rank == 1 + (row_V > row_V[entry.token_id]).sum()
        assert len(entry.top_ids) == len(entry.top_logprobs) == top_n
        assert np.allclose(entry.top_logprobs, np.sort(row_V)[::-1][:top_n], atol=1e-4)
