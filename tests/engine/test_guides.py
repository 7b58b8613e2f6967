"""Constrained requests in the engine: whatever runs beside them, they are answered as if they were alone."""

import json
import random
import threading

import jsonschema
import msgspec
import pytest

from tenon.core.sampling import SamplingParams
from tenon.core.structured import StructuredOutputs, Thinking
from tenon.engine import oracle
from tenon.engine.oracle import answer_logits
from tenon.grammar import llguidance
from tenon.grammar.matcher import GrammarError
from tests.grammar.schemas import random_object

from .simulation import Answer, Simulation, check_logprobs, make_engine, random_params

VOCAB, EOS = oracle.VOCAB, oracle.EOS
THINKING = Thinking(pairs=[("<think>", "</think>")], closing=[list(b"\n</think>")], inside=0)


def engine(**args):
    return make_engine(vocab=VOCAB, eos=(EOS,), **{"num_blocks": 400, "max_position": 400, **args})


def structured(**fields) -> StructuredOutputs:
    return StructuredOutputs(**fields)


def params(**fields) -> SamplingParams:
    return SamplingParams(**{"max_tokens": 120, "seed": 3, **fields})


def run(engine, adds: list[tuple[list[int], SamplingParams, dict]]) -> list[Answer]:
    simulation = Simulation(engine)
    for prompt, own, fields in adds:
        simulation.add(prompt, own, **fields)
    simulation.run()
    engine.check_integrity()
    assert engine.stats().kv_blocks_used == 0
    return list(simulation.answers.values())


def text_of(answer: Answer) -> str:
    return bytes(t for t in answer.tokens if t < 256).decode()


def random_guided(rng: random.Random, schema: dict) -> SamplingParams:
    """A constraint, and anything else that a request may ask of the sampler."""
    fields = {
        "temperature": rng.choice([0.0, 1.0, 3.0]),
        "seed": rng.randrange(2**64),
        "max_tokens": rng.randint(20, 120),
    }
    fields |= rng.choice([{}, {"logprobs": 3}, {"min_tokens": 15}, {"repetition_penalty": 1.2, "top_p": 0.9}])
    fields |= rng.choice([{}, {"logit_bias": {ord('"'): 6.0, ord("}"): 6.0}}, {"stop_token_ids": [ord("q")]}])
    if rng.random() < 0.4:
        fields |= {"thinking": THINKING, "thinking_token_budget": rng.choice([0, 3, 8])}
    return SamplingParams(structured_outputs=structured(json=schema), **fields)


def test_the_same_answer_alone_in_any_batch_and_after_preemption(seed):
    rng = random.Random(seed)
    adds, schemas = [], []
    for i in range(14):
        prompt = [rng.randrange(256) for _ in range(rng.randint(1, 40))]
        schemas.append(random_object(rng, 1) if i % 2 else None)
        own = random_guided(rng, schemas[-1]) if i % 2 else random_params(rng, VOCAB, 60)
        adds.append((prompt, own, {"choice": rng.randrange(3)}))
    alone = [run(engine(), [add])[0] for add in adds]
    crowded = engine(num_blocks=60, max_num_batched_tokens=40, max_num_seqs=10, max_model_len=200)
    together = run(crowded, adds)
    assert crowded.scheduler.num_preemptions, "nothing was preempted: the test tests too little"
    assert [(a.tokens, a.finish_reason, a.logprobs) for a in together] == [
        (a.tokens, a.finish_reason, a.logprobs) for a in alone
    ]
    for answer, schema, (prompt, own, _) in zip(together, schemas, adds, strict=True):
        assert answer.error is None
        if own.logprobs is not None:
            logits_CV = answer_logits(prompt + answer.tokens, VOCAB)
            check_logprobs(answer.logprobs, logits_CV[len(prompt) - 1 : -1], answer.tokens, own.logprobs)
        if schema is not None and answer.finish_reason == "stop" and answer.stop_reason is None:
            body = bytes(t for t in answer.tokens if t < 256)
            if own.thinking:
                assert b"</think>" in body
                body = body.partition(b"</think>")[2]
            jsonschema.validate(json.loads(body), schema)


def test_choices_share_a_grammar_and_differ():
    own = params(structured_outputs=structured(choice=["red", "green", "blue"]), temperature=3.0)
    answers = run(engine(), [([7, 8], own, {"choice": i}) for i in range(20)])
    texts = {text_of(answer) for answer in answers}
    assert texts <= {"red", "green", "blue"}
    assert len(texts) > 1
    assert {answer.finish_reason for answer in answers} == {"stop"}


def test_a_grammar_that_is_wrong_ends_its_own_request():
    simulation = Simulation(engine())
    bad = simulation.add([1, 2], params(structured_outputs=structured(regex="([")))
    worse = simulation.add([1, 2], params(structured_outputs=structured(json={"$ref": "#"})))
    simulation.add([1, 2], params(ignore_eos=True))
    outputs = []
    while simulation.engine.has_work:
        outputs += simulation.engine.step().outputs
    errors = {o.request_id: o for o in outputs if o.error}
    assert set(errors) == {bad, worse}
    for output in errors.values():
        assert (output.error_kind, output.error_param) == ("InvalidRequest", "structured_outputs")
        assert output.error_code == "invalid_grammar"
    assert sum(len(o.new_token_ids) for o in outputs) == 120


def test_a_grammar_that_becomes_too_large_on_its_way(monkeypatch):
    """Some grammars show only with an output what they cost."""
    calls = []
    really_fill = llguidance.LlgMatcher.fill_mask

    def fill(self, mask_W):
        calls.append(mask_W)
        if len(calls) == 5:
            raise GrammarError("lexer error: too many expressions constructed")
        really_fill(self, mask_W)

    monkeypatch.setattr(llguidance.LlgMatcher, "fill_mask", fill)
    simulation = Simulation(engine())
    simulation.add([1, 2], params(structured_outputs=structured(regex="[ab]*"), min_tokens=50))
    outputs = []
    while simulation.engine.has_work:
        outputs += simulation.engine.step().outputs
    last = outputs[-1]
    assert "too many expressions" in last.error
    assert (last.error_kind, last.error_param) == ("InvalidRequest", "structured_outputs")
    assert last.error_code == "invalid_grammar"


def test_a_grammar_outranks_min_tokens():
    own = params(structured_outputs=structured(choice=["ab"]), min_tokens=50)
    (answer,) = run(engine(), [([1], own, {})])
    assert (answer.tokens, answer.finish_reason) == ([*b"ab", EOS], "stop")
    more = params(structured_outputs=structured(regex="[ab]+"), min_tokens=50)
    (answer,) = run(engine(), [([1], more, {})])
    assert len(answer.tokens) >= 50


def test_a_grammar_and_parameters_that_leave_nothing():
    own = params(structured_outputs=structured(choice=["ab"]), stop_token_ids=[ord("a")], min_tokens=5)
    (answer,) = run(engine(), [([1], own, {})])
    assert "no token is allowed" in answer.error


def test_a_request_waits_for_its_grammar_and_nobody_else_does():
    subject = engine()
    release, compile = threading.Event(), subject.guides.compiler._compile

    def slow(outputs, vocabulary):
        release.wait(60)
        return compile(outputs, vocabulary)

    subject.guides.compiler._compile = slow
    simulation = Simulation(subject)
    own = params(structured_outputs=structured(choice=["ab"]))
    waiting, gone = simulation.add([1], own), simulation.add([2], own)
    free = simulation.add([3], params(max_tokens=5))
    assert subject.stats().num_requests_waiting == 3
    while simulation.answers[free].finish_reason is None:
        simulation.step()
    assert subject.has_work
    simulation.abort(gone)
    again = simulation.adds[waiting]  # its id is taken
    for add in (again, msgspec.structs.replace(again, params=params(max_tokens=5, seed=1))):
        subject.handle(add)
        (refused,) = subject.step().outputs
        assert "in flight" in refused.error
    release.set()
    while subject.has_work:
        simulation.step()
    assert bytes(simulation.answers[waiting].tokens[:-1]) == b"ab"
    assert not simulation.answers[gone].tokens


def test_a_grammar_that_takes_too_long():
    subject = engine()
    subject.guides.compiler._seconds = 0.05
    release = threading.Event()
    subject.guides.compiler._compile = lambda outputs, vocabulary: release.wait(60)
    (answer,) = run(subject, [([1], params(structured_outputs=structured(choice=["ab"])), {})])
    release.set()
    assert "longer than" in answer.error


def test_a_fault_of_the_compiler_is_not_the_request_s():
    subject = engine()

    def broken(outputs, vocabulary):
        raise OSError("/secret/path")

    subject.guides.compiler._compile = broken
    (answer,) = run(subject, [([1], params(structured_outputs=structured(choice=["ab"])), {})])
    assert answer.error == "internal error: OSError"


def test_a_grammar_that_cannot_be_followed(monkeypatch):
    """It compiled, but its matcher cannot be made: the others go on."""

    def broken(program):
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(llguidance.LlgProgram, "matcher", broken)
    own = params(structured_outputs=structured(choice=["ab"]))
    one, other = run(engine(), [([1], own, {}), ([2], params(max_tokens=5), {})])
    assert one.error == "internal error: RuntimeError"
    assert len(other.tokens) == 5


def test_a_grammar_that_fails_on_its_way(monkeypatch):
    fill_mask, calls = llguidance.LlgMatcher.fill_mask, []

    def fail(matcher, mask_W):
        calls.append(1)
        if len(calls) == 4:
            raise GrammarError("too complex")
        fill_mask(matcher, mask_W)

    monkeypatch.setattr(llguidance.LlgMatcher, "fill_mask", fail)
    simulation = Simulation(engine())
    culprit = simulation.add([1], params(structured_outputs=structured(choice=["abcdefgh"])))
    simulation.add([2], params(ignore_eos=True))
    simulation.run()
    answer = simulation.answers.pop(culprit)
    assert (answer.error, bytes(answer.tokens)) == ("too complex", b"abc")
    simulation.check()


def test_budget_alone(seed):
    rng = random.Random(seed)
    budget = rng.randint(0, 10)
    own = params(
        thinking=THINKING,
        thinking_token_budget=budget,
        temperature=1.0,
        seed=seed,
        ignore_eos=True,
        max_tokens=40,
    )
    (answer,) = run(engine(), [([5, 6], own, {})])
    at = bytes(min(t, 255) for t in answer.tokens).find(b"\n</think>")
    assert budget <= at <= budget + 3  # up to three tokens complete a character
    assert len(answer.tokens) == 40


@pytest.mark.parametrize("count", [3, 70])
def test_more_masks_than_one_slice_of_logits(count):
    subject = engine(max_num_seqs=80)
    subject.runner._slice_rows = 4
    own = [params(structured_outputs=structured(choice=["ab", "cd"]), seed=i) for i in range(count)]
    answers = run(subject, [([1], p, {}) for p in own])
    assert {text_of(a) for a in answers} <= {"ab", "cd"}
