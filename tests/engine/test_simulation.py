"""Whole engines under random load: every answer equals the pure function, and no block stays behind."""

import random

import pytest

from tenon.cache.demand import Demand
from tenon.core.sampling import SamplingParams
from tenon.engine.oracle import FULL, STATE

from .simulation import Simulation, chunk, large_state, make_engine, random_groups, random_params, window

CONFIGURATIONS = {
    "roomy": {},
    "no prefix cache": {"enable_prefix_caching": False},
    "tiny pool": {"num_blocks": 12, "max_model_len": 40},
    "tiny pool, no prefix cache": {"num_blocks": 12, "max_model_len": 40, "enable_prefix_caching": False},
    "chunks of 1": {"max_num_batched_tokens": 1, "max_num_seqs": 1},
    "chunks of 7": {"max_num_batched_tokens": 7, "max_num_seqs": 4, "num_blocks": 30},
    "one block": {"num_blocks": 2, "block_size": 16, "max_model_len": 32},
    "priority": {"scheduling_policy": "priority", "num_blocks": 20, "max_model_len": 60},
    "windows": {"groups": (*FULL, window(6), window(6)), "num_blocks": 100},
    "windows, tiny pool": {"groups": (*FULL, window(6), window(9)), "num_blocks": 34, "max_model_len": 40},
    "windows, no prefix cache": {
        "groups": (*FULL, window(5)),
        "num_blocks": 20,
        "enable_prefix_caching": False,
    },
    "windows alone": {
        "groups": (window(7),),
        "num_blocks": 12,
        "max_num_batched_tokens": 8,
        "max_num_seqs": 8,
    },
    "local chunks": {"groups": (chunk(12), *FULL, chunk(12)), "num_blocks": 60, "max_num_batched_tokens": 16},
    "states": {"groups": (*FULL, STATE)},
    "few states": {"groups": (*FULL, large_state(16)), "num_blocks": 30, "max_num_seqs": 6},
    "few states, no prefix cache": {
        "groups": (*FULL, large_state(32)),
        "num_blocks": 24,
        "enable_prefix_caching": False,
    },
    "states, chunks of 1": {"groups": (*FULL, STATE), "max_num_batched_tokens": 1, "max_num_seqs": 1},
    "states and windows": {
        "groups": (window(10), *FULL, STATE),
        "num_blocks": 60,
        "max_num_batched_tokens": 9,
        "max_num_seqs": 5,
    },
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_random_load(name):
    seed = random.randrange(2**32)
    try:
        _random_load(random.Random(seed), CONFIGURATIONS[name], num_requests=40)
    except BaseException:
        print(f"seed {seed}")
        raise


def _random_load(rng: random.Random, configuration: dict, num_requests: int) -> None:
    engine = make_engine(**configuration)
    simulation = Simulation(engine)
    vocab, longest = engine.runner.model.spec.vocab_size, engine.scheduler.max_model_len
    prefixes = [[rng.randrange(vocab) for _ in range(longest)] for _ in range(3)]
    while len(simulation.adds) < num_requests:
        for _ in range(rng.choice([0, 1, 1, 2, 6])):
            shared = rng.choice(prefixes)[: rng.randint(0, longest // 2)]
            own = [rng.randrange(vocab) for _ in range(rng.randint(0 if shared else 1, longest // 3))]
            params = random_params(rng, vocab, longest // 2)
            priority, salt = rng.randint(-2, 2), rng.choice(["", "", "x"])
            for choice in range(rng.choice([1, 1, 3])):
                simulation.add(shared + own, params, choice=choice, priority=priority, cache_salt=salt)
        for _ in range(rng.randint(0, 12)):
            simulation.step()
            engine.check_integrity()
        if simulation.adds and rng.random() < 0.3:
            simulation.abort(rng.choice(list(simulation.adds)))
        if rng.random() < 0.05:
            engine.scheduler.cache.reset()
    simulation.run()
    simulation.check()


@pytest.mark.parametrize("caching", [True, False])
def test_random_groups_of_layers(caching, seed):
    """Any mix, in pools around the least that one request needs, in steps of any size."""
    rng = random.Random(seed)
    for _ in range(6):
        length = rng.choice([24, 40, 60])
        configuration = {
            "groups": random_groups(rng),
            "max_model_len": length,
            "max_num_batched_tokens": rng.choice([6, 16, 2048]),
            "max_num_seqs": rng.choice([2, 6]),
            "enable_prefix_caching": caching,
        }
        demand = Demand(configuration["groups"], 4, configuration["max_num_batched_tokens"])
        configuration["num_blocks"] = rng.randint(1, 3) * demand.blocks(length) + rng.randint(0, 9)
        print(configuration)
        _random_load(rng, configuration, num_requests=20)


def test_hashes_that_collide_give_the_right_tokens(monkeypatch):
    """With hashes of 8 bits, different prefixes and salts meet under one key all the time."""
    from tenon.cache.prefix import PrefixCache

    full_hash = PrefixCache._hash
    monkeypatch.setattr(PrefixCache, "_hash", lambda self, data: full_hash(self, data)[:1])
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    _random_load(random.Random(seed), {"num_blocks": 300}, num_requests=60)


def test_pools_too_small_for_the_load_do_preempt():
    """The simulation above means something only if it meets preemption and prefix hits."""
    engine = make_engine(num_blocks=12, max_model_len=40)
    simulation = Simulation(engine)
    for i in range(8):
        simulation.add([1, 2, 3, 4, 5, i], SamplingParams(max_tokens=30, ignore_eos=True, seed=i))
    simulation.run()
    simulation.check()
    stats = engine.stats()
    assert stats.num_preemptions > 0
    assert stats.num_preemptions <= 3 * 8, "thrashing"
    assert stats.prefix_cache_hits > 0


def test_choices_of_one_prompt_share_its_blocks_from_the_first_step():
    engine = make_engine()
    simulation = Simulation(engine)
    for choice in range(4):
        simulation.add(list(range(33)), SamplingParams(max_tokens=4, seed=5, temperature=2.0), choice=choice)
    simulation.step()
    assert engine.stats().kv_blocks_used == 8 + 4
    simulation.run()
    simulation.check()
    assert [simulation.answers[str(i)].num_cached_tokens for i in range(4)] == [0, 32, 32, 32]
    assert len({tuple(answer.tokens) for answer in simulation.answers.values()}) > 1


def test_a_warm_prefix_and_a_long_prompt_in_chunks():
    engine = make_engine(num_blocks=200, max_position=512, max_num_batched_tokens=16, max_num_seqs=4)
    simulation = Simulation(engine)
    prompt = [random.randrange(50) for _ in range(400)]
    first = simulation.add(prompt, SamplingParams(max_tokens=3, seed=1, temperature=0.0, ignore_eos=True))
    simulation.run()
    assert engine.num_steps >= 400 // 16 + 2
    second = simulation.add(prompt, SamplingParams(max_tokens=3, seed=1, temperature=0.0, ignore_eos=True))
    simulation.run()
    simulation.check()
    assert simulation.answers[first].num_cached_tokens == 0
    assert simulation.answers[second].num_cached_tokens == 396


def test_decoding_goes_on_while_a_long_prompt_is_chunked():
    engine = make_engine(num_blocks=200, max_position=512, max_num_batched_tokens=16, max_num_seqs=4)
    simulation = Simulation(engine)
    short = simulation.add([1, 2], SamplingParams(max_tokens=30, ignore_eos=True, seed=1))
    simulation.step()
    simulation.add([random.randrange(50) for _ in range(400)], SamplingParams(max_tokens=2, seed=1))
    for _ in range(20):
        simulation.step()
    assert len(simulation.answers[short].tokens) == 21
    simulation.run()
    simulation.check()


@pytest.mark.parametrize("shares", ["a", "abc"])
@pytest.mark.parametrize("prefix", [False, True])
def test_a_pool_for_half_of_what_runs_does_not_thrash(prefix, shares):
    """Goal G20: something is computed in every step (`Simulation.step`), and few lose their blocks."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    tokens = 48
    engine = make_engine(num_blocks=64, max_num_seqs=2 * 64 * 4 // tokens, enable_prefix_caching=prefix)
    simulation = Simulation(engine)
    for _ in range(200):
        length = rng.randint(4, tokens - 8)
        prompt = [rng.randrange(4, 50) for _ in range(length)]
        params = SamplingParams(max_tokens=tokens - length, seed=rng.randrange(99), ignore_eos=True)
        simulation.add(prompt, params, share=rng.choice(shares))
    simulation.run(check_every=50)
    simulation.check()
    assert 0 < engine.scheduler.num_preemptions <= 3 * len(simulation.adds), f"seed {seed}"


def test_two_that_always_wait_get_the_same():
    """Of whatever length their requests are: tokens are what counts (see `FairQueue`)."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    engine = make_engine(
        num_blocks=400, max_num_seqs=6, max_num_batched_tokens=48, enable_prefix_caching=False
    )
    simulation = Simulation(engine)
    work = dict.fromkeys("ab", 0)

    def add(share: str) -> None:
        long = share == "b"
        prompt = [rng.randrange(4, 50) for _ in range(rng.randint(20, 40) if long else rng.randint(2, 8))]
        params = SamplingParams(max_tokens=rng.randint(20, 40) if long else 5, seed=1, ignore_eos=True)
        simulation.add(prompt, params, share=share)

    for share in "aaaaaaaaaabbbbbbbbbb":
        add(share)
    for _ in range(1500):
        outputs = engine.step().outputs
        for output in outputs:
            request = simulation.adds[output.request_id]
            work[request.share] += 2 * len(output.new_token_ids)
            if output.finish_reason is not None:
                work[request.share] += len(request.prompt_token_ids)
                add(request.share)
    assert 0.9 < work["a"] / work["b"] < 1.1, f"seed {seed}: {work}"
