import random

import pytest

from .virtual import World


def world(seed: int, seconds: float, crashes: bool = True) -> World:
    made = World(random.Random(seed), crashes)
    try:
        made.run(seconds)
    except BaseException:
        print(f"seed {seed}; the last events:", *made.log[-12:], sep="\n")
        raise
    return made


@pytest.mark.parametrize("crashes", [True, False])
def test_random_worlds(crashes, seed):
    rng = random.Random(seed)
    worlds = [world(rng.randrange(2**32), 1.5, crashes) for _ in range(6)]
    assert sum(w.preemptions for w in worlds) > 10
    assert sum(w.tokens for w in worlds) > 500
    assert (sum(w.deaths for w in worlds) > 0) == crashes


def test_a_seed_is_a_run(seed):
    first, second = world(seed, 0.5), world(seed, 0.5)
    assert first.log == second.log
    assert [client.seen for client in first.clients] == [client.seen for client in second.clients]
