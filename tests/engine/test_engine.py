"""One engine, one request at fault: it ends with an error, and the others notice nothing."""

import random
import time

import numpy as np
import pytest

from tenon.core.messages import AddRequest, ResetPrefixCache
from tenon.core.sampling import SamplingParams
from tenon.engine.oracle import answer_logits

from .simulation import Simulation, make_engine, random_params, right_answer


def params(**fields) -> SamplingParams:
    return SamplingParams(**{"max_tokens": 12, "seed": 3, "ignore_eos": True, **fields})


def check_all_but(simulation: Simulation, culprit: str, error: str) -> None:
    answer = simulation.answers.pop(culprit)
    assert answer.finish_reason == "error"
    assert error in answer.error
    simulation.check()


@pytest.mark.parametrize("error", [ValueError, MemoryError, IndexError])
def test_a_request_that_makes_steps_fail_is_found_and_ended(error):
    simulation = Simulation(make_engine())
    for i in range(6):
        simulation.add([10 + i, 1, 2, 3, 4], params())
    culprit = simulation.add([40, 1], params())

    request = simulation.engine.scheduler.get(culprit)

    def fail(batch):
        if request.blocks and request.num_output == 4 and request.blocks[0][0] in batch.block_table_RB[:, 0]:
            raise error("at 0xdeadbeef in /secret/path")

    simulation.engine.runner.model.fail = fail
    simulation.run()
    assert "secret" not in simulation.answers[culprit].error
    assert len(simulation.answers[culprit].tokens) == 4
    check_all_but(simulation, culprit, error.__name__)


def test_a_step_that_fails_once_costs_nobody_a_token(seed):
    rng = random.Random(seed)
    simulation = Simulation(make_engine(num_blocks=30, max_model_len=60))
    for _ in range(12):
        prompt = [rng.randrange(50) for _ in range(rng.randint(1, 20))]
        simulation.add(prompt, random_params(rng, 50, 20))

    def fail(batch):
        if rng.random() < 0.1 and batch.num_requests > 1:
            raise MemoryError

    simulation.engine.runner.model.fail = fail
    simulation.run()
    simulation.check()


def test_logits_that_are_not_numbers_end_their_own_request(monkeypatch):
    simulation = Simulation(make_engine())
    for i in range(4):
        simulation.add([i, 5, 6], params(logprobs=2 if i % 2 else None))
    culprit = "2"
    model = simulation.engine.runner.model
    logits = model.logits

    def broken(hidden_SD):
        logits_SV = logits(hidden_SD)
        request = simulation.engine.scheduler.get(culprit)
        if request is not None and request.num_output == 4:
            logits_SV[2] = np.nan
        return logits_SV

    monkeypatch.setattr(model, "logits", broken)
    simulation.run()
    assert len(simulation.answers[culprit].tokens) == 4
    check_all_but(simulation, culprit, "not a number")


def test_edits_that_fail_end_their_own_request():
    simulation = Simulation(make_engine())
    for i in range(3):
        simulation.add([i, 5, 6], params(frequency_penalty=0.5, logprobs=1))
    request = simulation.engine.scheduler.get("1")

    def broken(*_):
        raise RuntimeError("no")

    request.edits.apply = broken
    simulation.run()
    check_all_but(simulation, "1", "RuntimeError")


@pytest.mark.parametrize(
    ("prompt", "fields", "error"),
    [
        ([], {}, "empty"),
        ([50], {}, "between 0 and 49"),
        ([-1], {}, "between 0 and 49"),
        ([1] * 96, {}, "context"),
        ([1], {"logit_bias": {50: 1.0}}, "logit_bias"),
        ([1], {"n": 2}, "single choices"),
        ([1], {"seed": None}, "single choices"),
    ],
)
def test_what_no_front_end_should_send_is_refused(prompt, fields, error):
    simulation = Simulation(make_engine())
    good = simulation.add([1, 2], params())
    bad = simulation.add(prompt, params(**fields))
    simulation.run()
    assert simulation.answers[good].finish_reason == "length"
    check_all_but(simulation, bad, error)


def test_a_failure_while_adding_is_the_requests_own(monkeypatch):
    simulation = Simulation(make_engine())
    monkeypatch.setattr(simulation.engine.runner.sampler, "admit", lambda request: 1 / 0)
    bad = simulation.add([1], params())
    monkeypatch.undo()
    simulation.add([1], params())
    simulation.run()
    check_all_but(simulation, bad, "ZeroDivisionError")


def test_a_request_id_in_flight_is_refused_and_the_first_goes_on():
    simulation = Simulation(make_engine())
    first = simulation.add([1, 2], params())
    simulation.engine.handle(AddRequest(request_id=first, prompt_token_ids=[3], params=params()))
    (refusal,) = [o for o in simulation.engine.step().outputs if o.error]
    assert refusal.error_kind == "InvalidRequest"


def test_abort_of_the_unknown_and_the_finished_does_nothing():
    simulation = Simulation(make_engine())
    simulation.abort(simulation.add([1, 2], params(max_tokens=1)))
    done = simulation.add([1, 2], params(max_tokens=1))
    simulation.run()
    simulation.abort(done)
    simulation.run()
    simulation.check()


def test_reset_forgets_cached_prefixes():
    simulation = Simulation(make_engine())
    prompt = list(range(30))
    for expected in (0, 28, 0):
        if expected == 0:
            simulation.engine.handle(ResetPrefixCache())
        request = simulation.add(prompt, params())
        simulation.run()
        assert simulation.answers[request].num_cached_tokens == expected


def test_prompt_logprobs_stay_within_their_memory(monkeypatch):
    """A long prompt's logits come in slices, in every chunk, and across preemption."""
    engine = make_engine(num_blocks=60, max_model_len=90, max_num_batched_tokens=40)
    engine.runner._slice_rows = 7
    simulation = Simulation(engine)
    rows = []
    passes = engine.runner.passes
    logits = passes.logits
    monkeypatch.setattr(passes, "logits", lambda rows_S: (rows.append(len(rows_S)), logits(rows_S))[1])
    for i in range(5):
        simulation.add([i, *range(40)], params(prompt_logprobs=3, logprobs=0, max_tokens=40))
    simulation.run()
    simulation.check()
    assert max(rows) <= 7
    assert engine.stats().num_preemptions > 0


def test_stop_tokens_and_min_tokens():
    engine = make_engine(eos=(3, 4))
    simulation = Simulation(engine)
    greedy = AddRequest(request_id="g", prompt_token_ids=[1], params=params(temperature=0.0, max_tokens=40))
    tokens, _, _ = right_answer(greedy, engine)
    stop = tokens[6]
    first = tokens.index(stop)
    request = simulation.add([1], params(temperature=0.0, stop_token_ids=[stop, 999]))
    later = simulation.add([1], params(temperature=0.0, stop_token_ids=[stop], min_tokens=first + 1))
    simulation.run()
    simulation.check()
    answer = simulation.answers[request]
    assert (answer.finish_reason, answer.stop_reason) == ("stop", stop)
    assert answer.tokens == tokens[: first + 1]
    assert stop not in simulation.answers[later].tokens[: first + 1]


def test_the_oracle_notices_a_foreign_block():
    """The tests above rest on this."""
    simulation = Simulation(make_engine())
    request = simulation.add(list(range(20)), params(max_tokens=10))
    for _ in range(3):
        simulation.step()
    running = simulation.engine.scheduler.get(request)
    simulation.engine.table.block_tables[0][running.row, 1] = 63
    while simulation.engine.has_work:
        simulation.step()
    assert simulation.answers[request].tokens != right_answer(simulation.adds[request], simulation.engine)[0]


def test_oracle_logits_look_like_a_distribution():
    logits_CV = answer_logits(list(range(200)))
    assert logits_CV.min() >= 0
    assert logits_CV.max() < 8
    assert len(set(logits_CV.argmax(axis=1).tolist())) > 60


def test_time_in_the_queue_goes_with_the_first_token():
    engine = make_engine(max_num_seqs=1)
    params = SamplingParams(max_tokens=3, ignore_eos=True, seed=1)
    now = time.monotonic()
    for name, arrival_time in (("a", now - 5), ("b", now - 3), ("c", None)):
        engine.handle(
            AddRequest(request_id=name, prompt_token_ids=[1], params=params, arrival_time=arrival_time)
        )
    queued: dict[str, list[float]] = {"a": [], "b": [], "c": []}
    while engine.has_work:
        for output in engine.step().outputs:
            queued[output.request_id].append(output.queued_seconds)
    assert 5 <= queued["a"][0] < 60
    assert 3 <= queued["b"][0] < 60
    assert queued["c"] == [0, 0, 0]
    assert queued["a"][1:] == queued["b"][1:] == [0, 0]
