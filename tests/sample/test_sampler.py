"""The sampler: edits cost only their tokens, logprobs are of the raw logits, batches change nothing."""

import random
from types import SimpleNamespace

import numpy as np

from tenon.core.messages import AddRequest
from tenon.core.request import Request
from tenon.core.sampling import SamplingParams
from tenon.sample.edits import LogitEdits, SeenTokens, needs_edits
from tenon.sample.sampler import Sampler, token_logprobs

VOCAB = 300


def make_rows(params: list[SamplingParams], choices: list[int]) -> SimpleNamespace:
    return SimpleNamespace(
        version=0,
        temperature_R=np.array([p.temperature for p in params], np.float32),
        top_k_R=np.array([p.top_k for p in params], np.int32),
        top_p_R=np.array([p.top_p for p in params], np.float32),
        min_p_R=np.array([p.min_p for p in params], np.float32),
        seed_R=np.array([p.seed for p in params], np.uint64),
        choice_R=np.array(choices, np.int32),
    )


def make_request(row: int, params: SamplingParams, choice: int, rng: random.Random) -> Request:
    prompt = [rng.randrange(VOCAB) for _ in range(rng.randint(1, 200))]
    add = AddRequest(request_id=str(row), prompt_token_ids=prompt, params=params, choice=choice)
    request = Request(add, row, 1000, frozenset({2}))
    request.tokens += [rng.randrange(VOCAB) for _ in range(rng.randint(0, 50))]
    request.row = row
    return request


def random_setup(seed: int, count: int):
    rng = random.Random(seed)
    params = [
        SamplingParams(
            temperature=rng.choice([0.0, 0.5, 1.5]),
            top_k=rng.choice([0, 3]),
            top_p=rng.choice([1.0, 0.7]),
            seed=rng.randrange(2**64),
            logprobs=rng.choice([None, 0, 5]),
            frequency_penalty=rng.choice([0.0, 1.0]),
            logit_bias=rng.choice([None, {5: 3.0}]),
            min_tokens=rng.choice([0, 16]),
            stop_token_ids=[4, VOCAB + 3],
        )
        for _ in range(count)
    ]
    choices = [rng.randrange(4) for _ in range(count)]
    requests = [make_request(i, params[i], choices[i], rng) for i in range(count)]
    sampler = Sampler(make_rows(params, choices), VOCAB)
    for request in requests:
        sampler.admit(request)
    logits_SV = np.random.default_rng(seed).normal(0, 3, (count, VOCAB)).astype(np.float32)
    return sampler, requests, logits_SV


def test_a_request_gets_the_same_token_alone_and_in_any_batch(seed):
    sampler, requests, logits_SV = random_setup(seed, 17)
    together = sampler.sample(requests, logits_SV.copy())
    order = random.Random(seed).sample(range(17), 17)
    shuffled = sampler.sample([requests[i] for i in order], logits_SV[order])
    for place, i in enumerate(order):
        alone = sampler.sample([requests[i]], logits_SV[i : i + 1].copy())
        assert alone.tokens == [together.tokens[i]] == [shuffled.tokens[place]]
        assert alone.logprobs == [together.logprobs[i]] == [shuffled.logprobs[place]]
    assert not together.errors


def test_logprobs_are_those_of_the_raw_logits(seed):
    sampler, requests, logits_SV = random_setup(seed, 30)
    raw_SV = logits_SV.copy()
    result = sampler.sample(requests, logits_SV)
    for request, token, entry, row_V in zip(requests, result.tokens, result.logprobs, raw_SV, strict=True):
        if request.params.logprobs is None:
            assert entry is None
            continue
        assert entry == token_logprobs(row_V[None], [token], [request.params.logprobs])[0]
        assert len(entry.top_ids) == request.params.logprobs


def test_edits_touch_nothing_else(seed):
    rng = random.Random(seed)
    params = SamplingParams(
        repetition_penalty=1.5, logit_bias={7: 2.0}, min_tokens=400, max_tokens=500, stop_token_ids=[9, VOCAB]
    )
    request = make_request(0, params, 0, rng)
    edits = LogitEdits(request, VOCAB)
    before_V = np.random.default_rng(seed).normal(0, 3, VOCAB).astype(np.float32)
    after_V = before_V.copy()
    edits.apply(request, after_V)
    seen = set(request.tokens)
    for token in range(VOCAB):
        value = before_V[token] + np.float32(2.0 if token == 7 else 0.0)
        if token in (2, 9):
            value = -np.inf
        elif token in seen:
            value = value / np.float32(1.5) if value > 0 else value * np.float32(1.5)
        assert after_V[token] == value


def test_min_tokens_bans_no_eos_that_is_ignored():
    params = SamplingParams(min_tokens=5, ignore_eos=True, stop_token_ids=[3])
    request = make_request(0, params, 0, random.Random(0))
    del request.tokens[request.num_prompt :]
    logits_V = np.zeros(VOCAB, np.float32)
    LogitEdits(request, VOCAB).apply(request, logits_V)
    assert np.flatnonzero(np.isneginf(logits_V)).tolist() == [3]


def test_tokens_are_followed_once_each(seed):
    rng = random.Random(seed)
    tokens = [rng.randrange(VOCAB) for _ in range(500)]
    params = SamplingParams(frequency_penalty=0.5, presence_penalty=0.25)
    incremental, at_once = SeenTokens(100), SeenTokens(100)
    for end in range(100, 501, 7):
        incremental.follow(tokens[:end])
    incremental.follow(tokens)
    at_once.follow(tokens)
    one_V, two_V = np.zeros(VOCAB, np.float32), np.zeros(VOCAB, np.float32)
    incremental.penalize(params, one_V)
    at_once.penalize(params, two_V)
    assert np.array_equal(one_V, two_V)
    for token in range(VOCAB):
        count = tokens[100:].count(token)
        assert one_V[token] == np.float32(-0.5 * count - 0.25 * (count > 0))


def test_most_requests_need_no_edits():
    assert not needs_edits(SamplingParams(temperature=0.3, top_k=5, stop_token_ids=[1]))
    assert needs_edits(SamplingParams(presence_penalty=0.1))


def test_position_and_choice_move_the_draw():
    rng = random.Random(1)
    params = SamplingParams(temperature=2.0, seed=1)
    drawn = set()
    for choice in range(20):
        request = make_request(0, params, choice, rng)
        sampler = Sampler(make_rows([params], [choice]), VOCAB)
        drawn.add(sampler.sample([request], np.zeros((1, VOCAB), np.float32)).tokens[0])
    assert len(drawn) > 10
