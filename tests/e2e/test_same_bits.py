"""The promise of docs/tour.md, on the default model: a request's bits do not depend on its surroundings.

Every test runs the same few requests in an engine that differs in one respect, and compares with each request
alone: the tokens, and the logits themselves, bit by bit, at every position that was sampled.
"""

from __future__ import annotations

import random

import pytest

from tenon.config import EngineArgs
from tenon.core.messages import AddRequest
from tenon.engine.loader import load_engine
from tests.engine.recorder import Recorder, Trace, check, make_requests

VOCAB = 49152
BLOCK_BYTES = 30 * 2 * 32 * 3 * 64 * 2  # layers, K and V, tokens, heads, width, bfloat16


@pytest.fixture(scope="module")
def load(model):
    def load(**args) -> Recorder:
        args = {"kv_cache_memory": "64MiB", "max_model_len": 1024, "max_num_seqs": 64, **args}
        return Recorder(load_engine(EngineArgs(model=model, **args).resolve()))

    return load


@pytest.fixture(scope="module")
def requests() -> list[AddRequest]:
    """Lengths around the sizes of blocks and of attention's steps."""
    return make_requests(random.Random(20_26), [1, 31, 65, 257, 530], VOCAB)


@pytest.fixture(scope="module")
def alone(load, requests) -> dict[str, Trace]:
    recorder = load(enable_prefix_caching=False)
    assert type(recorder.engine.runner.passes).__name__ == "ReplayedPasses"
    return {add.request_id: recorder.run([add])[add.request_id] for add in requests}


@pytest.mark.parametrize("size", [2, 7, 33])
def test_in_a_batch_with_others(size, load, requests, alone, seed):
    rng = random.Random(seed)
    recorder = load()
    mine = rng.sample(requests, min(size - 1, len(requests)))
    others = make_requests(rng, [rng.randint(1, 60) for _ in range(size - len(mine))], VOCAB, "other")
    batch = mine + others
    rng.shuffle(batch)
    got = recorder.run(batch)
    check(got, {add.request_id: alone[add.request_id] for add in mine})


@pytest.mark.parametrize("chunk", [1, 7, 64, 512])
def test_in_chunks(chunk, load, requests, alone):
    recorder = load(max_num_batched_tokens=chunk)
    some = requests[: {1: 3, 7: 4}.get(chunk, 5)]  # hundreds of steps take their time
    check(recorder.run(some), {add.request_id: alone[add.request_id] for add in some})


def test_with_a_cold_and_a_warm_prefix_cache(load, requests, alone):
    recorder = load()
    check(recorder.run(requests), alone)
    hits = recorder.engine.stats().prefix_cache_hits
    assert hits == 0
    check(recorder.run(requests), alone)
    assert recorder.engine.stats().prefix_cache_hits == sum(
        (len(add.prompt_token_ids) - 1) // 32 * 32 for add in requests
    )


@pytest.mark.parametrize("prefix_caching", [True, False])
def test_with_preemption(prefix_caching, load, requests, alone, seed):
    """15 blocks, and 8 tokens a step: while a long prompt goes in slowly, three others grow until
    it must give its blocks back."""
    recorder = load(
        kv_cache_memory=15 * BLOCK_BYTES,
        max_model_len=480,
        max_num_batched_tokens=8,
        enable_prefix_caching=prefix_caching,
    )
    assert recorder.engine.ready.num_kv_blocks == 15
    others = make_requests(random.Random(seed), [16] * 3, VOCAB, "other", max_tokens=60)
    mine = [requests[3], *requests[:3]]
    got = recorder.run(others + mine)
    check(got, {add.request_id: alone[add.request_id] for add in mine})
    assert recorder.engine.stats().num_preemptions > 0


@pytest.mark.parametrize("threads", [1, 2])
def test_with_any_number_of_threads(threads, load, requests, alone):
    native = pytest.importorskip("tenon.kernels.cpu._native")
    if threads > native.max_threads():
        pytest.skip("this machine has one core")
    before = native.num_threads()
    native.set_num_threads(threads)
    try:
        check(load().run(requests), alone)
    finally:
        native.set_num_threads(before)


def test_op_by_op_and_replayed(load, requests, alone, monkeypatch):
    monkeypatch.setattr("tenon.models.llama.Llama.recordable", False, raising=False)
    recorder = load()
    assert type(recorder.engine.runner.passes).__name__ == "EagerPasses"
    check(recorder.run(requests), alone)
