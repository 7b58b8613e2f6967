"""Engines that give vectors: the right ones, and the same bits whatever else is computed at the same time."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest

from tenon.config import EngineArgs
from tenon.core.messages import Abort, AddRequest
from tenon.core.pooling import PoolingParams
from tenon.core.sampling import SamplingParams
from tenon.engine.loader import load_engine
from tenon.kernels import cpu
from tests.models.encoders import ENCODERS, architectures, packed, reference, save, states
from tests.models.families import make, save_safetensors, tiny

if reason := cpu.support():
    pytest.skip(reason, allow_module_level=True)

from tenon.kernels.cpu import _native
from tenon.models import load_model

LENGTHS = [1, 31, 65, 33, 120, 2]
POOLINGS = ("mean", "cls", "last")


@contextlib.contextmanager
def threads(count):
    before = _native.num_threads()
    _native.set_num_threads(count)
    try:
        yield
    finally:
        _native.set_num_threads(before)


def adds(rng, lengths=LENGTHS, prefix="r", typed=False, **params):
    return [
        AddRequest(
            request_id=f"{prefix}{i}",
            prompt_token_ids=[rng.randrange(5, 160) for _ in range(length)],
            params=SamplingParams(max_tokens=1, seed=0),
            pooling=PoolingParams(**params),
            token_types=[int(p >= length // 2) for p in range(length)] if typed else [],
        )
        for i, length in enumerate(lengths)
    ]


def run(engine, requests):
    """Vectors by request id; the engine is empty before and after."""
    for add in requests:
        engine.handle(add)
    found = {}
    while engine.has_work:
        for output in engine.step().outputs:
            assert output.error is None, output.error
            vectors = output.vectors
            data = np.frombuffer(vectors.data, np.float32).reshape(vectors.rows, vectors.width)
            found[output.request_id] = data if vectors.each_token else data[0]
    engine.check_integrity()
    assert engine.stats().kv_blocks_used == 0
    return found


def alone(engine, requests):
    return {name: vector for add in requests for name, vector in run(engine, [add]).items()}


def same_bits(got, expected):
    assert got.keys() == expected.keys()
    for name, vector in expected.items():
        np.testing.assert_array_equal(got[name].view(np.uint32), vector.view(np.uint32), err_msg=name)


def load(files, **args):
    return load_engine(EngineArgs(model=str(files.directory), **args).resolve())


@pytest.fixture
def rng(seed):
    return random.Random(seed)


@pytest.fixture
def bert(tmp_path, seed):
    return save("bert", "BertModel", tmp_path, seed)


@pytest.fixture
def decoder(tmp_path, seed):
    model = make(tiny("llama"), seed)
    return model, save_safetensors(model, tmp_path)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_encoders_vectors(pooling, bert, rng):
    model, files = bert
    engine = load(files, dtype="float32", pooler=f"pooling={pooling},normalize=false")
    requests = adds(rng, typed=True)
    got = run(engine, requests)
    for add in requests:
        states_TD = reference(model, add.prompt_token_ids, add.token_types).last_hidden_state[0].numpy()
        expected = {"mean": states_TD.mean(0), "cls": states_TD[0], "last": states_TD[-1]}[pooling]
        np.testing.assert_allclose(got[add.request_id], expected, atol=2e-4 * np.abs(expected).max())


def test_vectors_have_length_one_unless_a_request_says_otherwise(bert, rng):
    engine = load(bert[1], dtype="float32")
    requests = adds(rng, [7, 9]) + adds(rng, [8], "long", normalize=False)
    got = run(engine, requests)
    assert np.linalg.norm(got["r0"]) == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(got["r1"]) == pytest.approx(1, abs=1e-6)
    assert abs(np.linalg.norm(got["long0"]) - 1) > 0.1


def test_the_first_numbers_of_an_embedding(bert, rng):
    engine = load(bert[1], pooler="matryoshka=true")
    whole, part = adds(rng, [20], normalize=False)[0], adds(rng, [20], "part", dimensions=8)[0]
    part.prompt_token_ids = whole.prompt_token_ids
    got = run(engine, [whole, part])
    first = got["r0"][:8]
    np.testing.assert_allclose(got["part0"], first / np.linalg.norm(first), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoders_bits_do_not_depend_on_company(family, dtype, rng, seed, tmp_path):
    """Batch, order, budget of tokens, threads and instruction set: all change at once."""
    bert = save(family, architectures(family, "embed")[0], tmp_path, seed)
    requests = adds(rng, typed=family == "bert") + adds(rng, [50, 12], "each", task="token_embed")
    with threads(1):
        expected = alone(load(bert[1], dtype=dtype), requests)
    for isa in cpu.variants():
        with cpu.variant(isa):
            engine = load(bert[1], dtype=dtype, max_num_batched_tokens=130, max_num_seqs=3)
            same_bits(run(engine, rng.sample(requests, len(requests))), expected)
    same_bits(run(load(bert[1], dtype=dtype), requests), expected)


def test_a_sequence_goes_into_one_step(bert, rng):
    engine = load(bert[1], max_num_batched_tokens=8)
    assert engine.ready.max_model_len == engine.scheduler.max_num_batched_tokens == 128
    run(engine, adds(rng, [128, 1, 128]))
    assert engine.num_steps == 3


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_decoders_vectors_do_not_depend_on_chunks(pooling, dtype, decoder, rng):
    """In chunks of 7 tokens, with too few blocks for all, and again with the prefix cache full."""
    model, files = decoder
    settings = {"dtype": dtype, "convert": "embed", "pooler": f"pooling={pooling},normalize=false"}
    requests = adds(rng) + adds(rng, [40], "each", task="token_embed")
    expected = alone(load(files, **settings), requests)
    if dtype == "float32":
        for add in requests[:-1]:
            states_TD = reference(model.model, add.prompt_token_ids).last_hidden_state[0].numpy()
            want = {"mean": states_TD.mean(0), "cls": states_TD[0], "last": states_TD[-1]}[pooling]
            np.testing.assert_allclose(expected[add.request_id], want, atol=2e-4 * np.abs(want).max())
    block = 2 * 2 * 32 * 2 * 16 * (4 if dtype == "float32" else 2)
    engine = load(
        files,
        **settings,
        max_num_batched_tokens=7,
        max_num_seqs=5,
        max_model_len=160,
        kv_cache_memory=8 * block,
    )
    for _ in range(2):
        same_bits(run(engine, requests), expected)
    assert (engine.stats().prefix_cache_hits > 0) == (pooling == "last")


def test_sums_start_anew_after_a_preemption(decoder, rng):
    engine = load(decoder[1], convert="embed", pooler="pooling=mean", max_num_batched_tokens=16)
    request = adds(rng, [90])
    expected = alone(engine, request)
    engine.handle(request[0])
    engine.step()
    step = type(engine.scheduler.schedule())()
    engine.scheduler._preempt(engine.scheduler.running[0], step)
    engine.table.update(step)
    found = run(engine, [])
    same_bits(found, expected)


def test_a_decoder_that_classifies(tmp_path, seed, rng):
    model, files = save(
        "llama", "LlamaForSequenceClassification", tmp_path, seed, num_labels=3, pad_token_id=0
    )
    requests = adds(rng, task="classify")
    for add in requests:
        add.prompt_token_ids = [max(token, 5) for token in add.prompt_token_ids]
    got = run(load(files, dtype="float32"), requests)
    for add in requests:
        logits_N = reference(model, add.prompt_token_ids).logits[0]
        np.testing.assert_allclose(got[add.request_id], logits_N.softmax(-1).numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"num_labels": 3}, "softmax"),
        ({"num_labels": 1}, "sigmoid"),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, "sigmoid"),
        ({"num_labels": 1, "problem_type": "regression"}, "none"),
    ],
)
def test_activations_of_classifiers(settings, expected, tmp_path, seed, rng):
    model, files = save("bert", "BertForSequenceClassification", tmp_path, seed, **settings)
    engine = load(files, dtype="float32")
    assert engine.ready.pooling.activation == expected
    requests = adds(rng, [12], task="classify") + adds(rng, [12], "raw", task="classify", activation=False)
    requests[1].prompt_token_ids = requests[0].prompt_token_ids
    got = run(engine, requests)
    logits_N = reference(model, requests[0].prompt_token_ids).logits[0]
    want = {"softmax": logits_N.softmax(-1), "sigmoid": logits_N.sigmoid(), "none": logits_N}[expected]
    np.testing.assert_allclose(got["raw0"], logits_N.numpy(), atol=1e-4 * logits_N.abs().max())
    np.testing.assert_allclose(got["r0"], want.numpy(), atol=1e-4 * logits_N.abs().max())


def refusal(engine, add):
    engine.handle(add)
    (output,) = engine.step().outputs
    assert output.error_kind == "InvalidRequest"
    return output.error


def test_requests_that_the_model_is_not_for(bert, rng, tmp_path):
    engine = load(bert[1])
    (add,) = adds(rng, [5], task="classify")
    assert "gives embeddings" in refusal(engine, add)
    add.pooling = None
    assert "does not generate" in refusal(engine, add)
    add.pooling, add.token_types = PoolingParams(), [0, 1]
    assert "token types" in refusal(engine, add)
    add.token_types = [0, 0, 9, 9, 9]
    assert "token types" in refusal(engine, add)
    add.token_types, add.prompt_token_ids = [], [1, 160]
    assert "token ids" in refusal(engine, add)
    add.prompt_token_ids = [1] * 129
    assert "128" in refusal(engine, add)
    (cut,) = adds(rng, [5], dimensions=8)
    assert "matryoshka" in refusal(engine, cut)
    engine.check_integrity()


def test_a_model_that_generates_gives_no_vectors(decoder, rng):
    (add,) = adds(rng, [5])
    assert "generates text" in refusal(load(decoder[1]), add)


def test_a_model_that_knows_one_type_of_token(rng, seed, tmp_path):
    """A pair's types never reach it: its table has one row."""
    engine = load(save("roberta", "RobertaModel", tmp_path, seed)[1])
    (add,) = adds(rng, [6], typed=True)
    assert "token types must be below 1" in refusal(engine, add)


def test_an_abort_of_what_waits(bert, rng):
    engine = load(bert[1], max_num_batched_tokens=128, max_num_seqs=1)
    requests = adds(rng, [10, 20])
    for add in requests:
        engine.handle(add)
    engine.handle(Abort(["r1"]))
    assert [output.request_id for output in engine.step().outputs] == ["r0"]
    assert not engine.has_work


def test_one_bad_request_in_a_step_harms_no_other(bert, rng, monkeypatch):
    engine = load(bert[1])
    requests = adds(rng, [10, 20, 30])
    expected = alone(engine, requests)
    real = engine.runner.run

    def fail(prepared):
        if any(request.id == "r1" for request in prepared.requests):
            raise RuntimeError("as asked")
        return real(prepared)

    monkeypatch.setattr(engine.runner, "run", fail)
    for add in requests:
        engine.handle(add)
    outputs = [output for _ in range(8) for output in engine.step().outputs]
    assert {output.request_id for output in outputs if output.error} == {"r1"}
    got = {o.request_id: np.frombuffer(o.vectors.data, np.float32) for o in outputs if o.vectors}
    del expected["r1"]
    same_bits(got, expected)
    engine.check_integrity()


def test_states_of_the_model_alone_are_those_of_the_engine(bert, rng):
    """The recorded pass against the model called directly."""
    files = bert[1]
    (add,) = adds(rng, [40], task="token_embed", normalize=False)
    got = run(load(files, dtype="bfloat16"), [add])["r0"]
    (states_TD,) = states(load_model(files), packed([add.prompt_token_ids]))
    np.testing.assert_array_equal(got, states_TD)
