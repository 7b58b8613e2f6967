"""Faults within the engine: they cost one request its answer at most, and no other a bit of its own."""

import random

import pytest

from tenon.core.sampling import SamplingParams
from tenon.util.failpoint import arm

from .simulation import Simulation, make_engine

STAGES = ("admit", "schedule", "alloc", "prepare", "execute", "sample", "emit", "free")


def load(**args) -> Simulation:
    """Eight requests that meet chunks, preemption and the prefix cache, marked r0 to r7."""
    engine = make_engine(
        **{"num_blocks": 24, "max_model_len": 60, "max_num_batched_tokens": 24, "max_num_seqs": 8, **args}
    )
    simulation = Simulation(engine, "r", faults=True)
    for i in range(8):
        prompt = [*range(5, 5 + 3 * i), *[i] * 9]
        params = SamplingParams(
            max_tokens=14,
            ignore_eos=True,
            seed=i,
            temperature=i % 2,
            logprobs=1 if i % 3 == 0 else None,
            prompt_logprobs=2 if i % 4 == 1 else None,
        )
        simulation.add(prompt, params)
    return simulation


@pytest.mark.parametrize("action", ["ValueError", "MemoryError"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("caching", [True, False])
def test_a_fault_of_one_request_fails_that_request_alone(stage, action, caching, caplog):
    with arm(f"{stage}@r3:{action}") as (fault,):
        simulation = load(enable_prefix_caching=caching)
        simulation.run()
    assert fault.fired
    answer = simulation.answers["r3"]
    if stage == "free":  # it had its answer
        simulation.check()
    else:
        simulation.check(failed={"r3"})
        assert answer.error == f"internal error: {action}"
        assert "request r3 " in caplog.text


@pytest.mark.parametrize("stage", STAGES)
def test_a_slow_stage_changes_nothing(stage):
    with arm(f"{stage}@r3:sleep=0.001") as (fault,):
        simulation = load()
        simulation.run()
    assert fault.fired
    simulation.check()


@pytest.mark.parametrize("action", ["ValueError", "MemoryError"])
def test_fail_the_nth(action):
    """Some of the places; tests/long has all of them."""
    fail_each(action, first=random.randint(1, 25), every=25)


def fail_each(action: str, first: int = 1, every: int = 1) -> None:
    """One fault at a place after the other, until the run is over before it comes to the place."""
    for n in range(first, 100_000, every):
        with arm(f"*:{action}:{n}") as (fault,):
            simulation = load()
            simulation.run()
        failed = {name for name, answer in simulation.answers.items() if answer.error}
        assert len(failed) <= 1, n
        simulation.check(failed)
        if not fault.fired:
            break
    assert n > 300


@pytest.mark.parametrize("stage", STAGES)
def test_when_every_request_fails_the_next_one_does_not(stage):
    with arm(f"{stage}@r:ValueError"):
        simulation = load()
        simulation.run()
    failed = {name for name, answer in simulation.answers.items() if answer.error}
    assert len(failed) == (0 if stage == "free" else 8)
    simulation.add([1, 2, 3], SamplingParams(max_tokens=5, seed=1))
    simulation.run()
    simulation.check(failed)


@pytest.mark.parametrize("stage", ["schedule", "free"])
def test_an_abort_in_the_midst_of_trouble(stage):
    with arm(f"{stage}@r3:ValueError"):
        simulation = load()
        simulation.step()
        simulation.abort("r3")
        simulation.abort("r5")
        simulation.run()
    simulation.check()


def test_an_error_of_no_request_is_the_engines_own(monkeypatch):
    simulation = load()

    def fail() -> None:
        raise RuntimeError("of the engine")

    monkeypatch.setattr(simulation.engine.scheduler, "_budget", fail)
    with pytest.raises(RuntimeError, match="of the engine"):
        simulation.engine.step()
