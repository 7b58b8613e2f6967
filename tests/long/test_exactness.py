"""Ten million tokens, a hundred thousand preemptions: none lost, doubled, reordered or foreign; and worlds.

Every answer is compared with the oracle's own, at all of its positions at once.
"""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from tenon.cache.demand import Demand
from tenon.core.messages import AddRequest
from tenon.core.sampling import SamplingParams
from tenon.engine.oracle import FULL, answer_logits
from tests.engine.poison import poison
from tests.engine.simulation import Simulation, make_engine, random_groups
from tests.engine.test_virtual import world

from .budget import many

VOCAB, EOS = 50, 3


class Exact(Simulation):
    """Judges each answer when it has ended, and forgets it."""

    tokens = 0
    finished = 0
    most_preempted = 0.0

    def judge(self) -> None:
        for request_id, answer in list(self.answers.items()):
            if answer.finish_reason is None and request_id not in self.aborted:
                continue
            self._one(self.adds[request_id], answer.tokens, answer.finish_reason)
            assert answer.error is None
            del self.answers[request_id]
            self.aborted.discard(request_id)
            self.adds[request_id] = None  # its number stays taken

    def _one(self, add: AddRequest, got: list[int], reason: str | None) -> None:
        whole = add.prompt_token_ids + got
        groups = self.engine.runner.model.spec.kv_groups
        right = answer_logits(whole, VOCAB, groups)[len(add.prompt_token_ids) - 1 : -1].argmax(axis=1)
        assert np.array_equal(right, got), f"{add}: a lost, doubled or foreign token"
        self.tokens += len(got)
        if reason is None:  # aborted
            return
        self.finished += 1
        assert EOS not in got[:-1] or add.params.ignore_eos
        stopped = got[-1] == EOS and not add.params.ignore_eos
        assert reason == ("stop" if stopped else "length")
        assert stopped or len(got) == add.params.max_tokens


@pytest.mark.parametrize("caching", [True, False])
def test_tokens_are_exact_through_preemption(caching, seed):
    """Half of the tokens with the prefix cache, half without; a third of the engines have several groups
    of layers: full, bounded, with states. The pool holds a tenth to a third of what is wanted."""
    wanted, begin = many(5_000_000), time.monotonic()
    rng = random.Random(seed)
    tokens = preemptions = finished = steps = 0
    while tokens < wanted:
        groups = rng.choice([FULL, FULL, random_groups(rng)])
        part = 250_000 if groups is FULL else 100_000
        batched = rng.choice([32, 64, 256])
        longest = Demand(groups, 4, batched).blocks(160)
        engine = make_engine(
            groups=groups,
            num_blocks=rng.randint(longest + 2, longest * 7 // 2),
            block_size=4,
            max_position=512,
            max_model_len=160,
            max_num_seqs=24,
            max_num_batched_tokens=batched,
            vocab=VOCAB,
            eos=(EOS,),
            enable_prefix_caching=caching,
        )
        if rng.random() < 0.2:
            poison(engine)
        exact = Exact(engine)
        prefixes = [[rng.randrange(VOCAB) for _ in range(64)] for _ in range(4)]
        while exact.tokens < min(part, wanted - tokens):
            while len(engine.scheduler) < 30:
                prompt = rng.choice(prefixes)[: rng.choice([0, 8, 32])]
                prompt = prompt + [rng.randrange(VOCAB) for _ in range(rng.randint(1, 12))]
                params = SamplingParams(
                    max_tokens=rng.randint(20, 110), temperature=0.0, seed=0, ignore_eos=rng.random() < 0.8
                )
                request_id = exact.add(prompt, params)
                if rng.random() < 0.05:
                    exact.abort(request_id)
            for _ in range(20):
                exact.step()
            if rng.random() < 0.2:
                exact.abort(rng.choice([request.id for request in engine.scheduler] or ["0"]))
            exact.judge()
            steps += 20
        exact.run(check_every=50)
        exact.judge()
        engine.check_integrity()
        stats = engine.stats()
        assert stats.kv_blocks_used == 0
        assert stats.num_preemptions <= 3 * exact.finished
        tokens, finished = tokens + exact.tokens, finished + exact.finished
        preemptions += stats.num_preemptions
        kinds = [group.kind for group in groups]
        print(f"{kinds}: {tokens} tokens, {preemptions} preemptions, {finished} requests", flush=True)
    assert preemptions >= many(40_000)
    seconds = time.monotonic() - begin
    print(f"caching {caching}: {tokens} tokens, {preemptions} preemptions, {finished} requests")
    print(f"in {seconds:.0f} s, {tokens / seconds:.0f} tokens/s")


@pytest.mark.parametrize("crashes", [True, False])
def test_worlds(crashes, seed):
    """tests/engine/test_virtual.py, again and again. A seed that fails is printed."""
    rng = random.Random(seed)
    tokens = preemptions = deaths = 0
    for _ in range(many(250)):
        one = world(rng.randrange(2**32), 3.0, crashes)
        tokens, preemptions, deaths = tokens + one.tokens, preemptions + one.preemptions, deaths + one.deaths
    print(f"{tokens} tokens, {preemptions} preemptions, {deaths} deaths of engines")
    assert preemptions
