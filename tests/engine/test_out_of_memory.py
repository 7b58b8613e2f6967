"""Memory that runs out in a step: steps get smaller before anybody is failed, and grow again after."""

import random

import pytest

from tenon.core.sampling import SamplingParams
from tenon.util.failpoint import arm

from .simulation import Simulation
from .test_containment import load


def loaded(fail) -> Simulation:
    simulation = load(num_blocks=64, max_num_batched_tokens=200)
    simulation.engine.runner.model.fail = fail
    return simulation


@pytest.mark.parametrize("most", [1, 2, 7, 16, 31, 64])
def test_steps_that_are_too_large_are_split_and_nobody_fails(most):
    """Down to the size at which a step is not made smaller any more, all answers are right."""
    failures = []

    def fail(batch):
        if batch.num_tokens > most:
            failures.append(batch.num_tokens)
            raise MemoryError

    simulation = loaded(fail)
    simulation.run()
    assert failures
    if most >= 16:
        simulation.check()
    else:  # a prompt cannot be computed in steps of fewer tokens than that
        simulation.check({name for name, answer in simulation.answers.items() if answer.error})
        assert all(size > most for size in failures)


@pytest.mark.parametrize("most", [1, 3])
def test_batches_of_too_many_requests_are_split(most):
    def fail(batch):
        if batch.num_requests > most:
            raise MemoryError

    simulation = loaded(fail)
    simulation.run()
    simulation.check()


def test_one_failure_at_any_step_fails_nobody():
    steps = 0
    while True:
        left = steps

        def fail(batch):
            nonlocal left
            left -= 1
            if left == -1:
                raise MemoryError

        simulation = loaded(fail)
        simulation.run()
        simulation.check()
        if left >= 0:
            break
        steps += 1
    assert steps >= 14


def test_the_offender_alone_is_failed():
    """Whatever is tried, its steps run out of memory."""
    simulation = loaded(None)
    offender = simulation.add([42] * 40, SamplingParams(max_tokens=5, seed=1))

    def fails(batch):
        if (batch.token_ids_T == 42).sum() > 3:
            raise MemoryError

    simulation.engine.runner.model.fail = fails
    simulation.run()
    simulation.check({offender})
    assert simulation.answers[offender].error == "internal error: MemoryError"


def test_steps_grow_again():
    sizes = []

    def fail(batch):
        sizes.append(batch.num_tokens)
        if len(sizes) == 1:
            raise MemoryError

    simulation = loaded(fail)
    for _ in range(4):
        simulation.run()
        for i in range(3):
            own = [random.randrange(5, 50) for _ in range(50)]
            simulation.add(own, SamplingParams(max_tokens=18, ignore_eos=True, seed=i))
    simulation.run()
    simulation.check()
    assert sizes[1] <= sizes[0] // 2
    assert max(sizes[1:]) == 150


@pytest.mark.parametrize("stage", ["alloc", "prepare", "sample"])
def test_it_runs_out_elsewhere(stage):
    """Once anywhere, it fails nobody."""
    for n in range(1, 30, 4):
        with arm(f"{stage}:MemoryError:{n}") as (fault,):
            simulation = load()
            simulation.run()
        assert fault.fired
        simulation.check()
