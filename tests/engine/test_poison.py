import random

import pytest

from tenon.core.sampling import SamplingParams
from tenon.engine.oracle import FULL

from .poison import poison
from .simulation import Simulation, make_engine, random_params, window


@pytest.mark.parametrize("windows", [(), (9, 9)])
@pytest.mark.parametrize("caching", [True, False])
def test_no_step_reads_what_was_freed(caching, windows, seed):
    rng = random.Random(seed)
    groups = (*FULL, *(window(length) for length in windows))
    engine = make_engine(
        num_blocks=12 if not windows else 33, groups=groups, max_model_len=44, enable_prefix_caching=caching
    )
    poisoned = poison(engine)
    simulation = Simulation(engine)
    # Windowed layers keep more in reserve: there need be no preemption.
    while len(simulation.adds) < 60 or (not windows and not engine.stats().num_preemptions):
        assert len(simulation.adds) < 1000, "nothing was preempted: the test tests too little"
        for _ in range(rng.choice([0, 1, 3])):
            prompt = [1] * rng.choice([0, 8, 16]) + [rng.randrange(50) for _ in range(rng.randint(1, 12))]
            simulation.add(prompt, random_params(rng, 50, 14))
        for _ in range(rng.randint(0, 8)):
            simulation.step()
        if simulation.adds and rng.random() < 0.3:
            simulation.abort(rng.choice(list(simulation.adds)))
    simulation.run()
    simulation.check()
    assert len(poisoned) > 20


def test_a_block_that_is_freed_too_early_is_seen():
    engine = make_engine()
    poison(engine)
    simulation = Simulation(engine, faults=True)
    simulation.add(list(range(5, 25)), SamplingParams(max_tokens=10, ignore_eos=True, seed=1))
    for _ in range(3):
        simulation.step()
    (request,) = engine.scheduler
    engine.scheduler.cache.pool.on_free(request.blocks[0][1])
    simulation.step()
    assert simulation.answers["0"].error == "internal error: AssertionError"
