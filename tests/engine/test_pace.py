"""The share of prompts in a step follows measured time, on machines made up here."""

import random

import pytest

from tenon.core.request import State
from tenon.engine.pace import ALONE_SECONDS, LEAST, RATIO, Pace

from .test_scheduler import Driver


class Machine:
    """A scheduler on a machine where a step takes `decode` seconds, if anything decodes, and `token` seconds
    per token of prompts; and what each token waited for."""

    def __init__(self, decode: float, token: float) -> None:
        self.driver = Driver(num_blocks=4000, tokens=2048, seqs=64, length=2000)
        self.driver.scheduler.pace = Pace()
        self.driver.seconds = self._seconds
        self.decode, self.token = decode, token
        self.pauses: list[float] = []  # each step's time, once for every request that decoded in it
        self.steps = 0

    def _seconds(self, step) -> float:
        decoding = step.num_tokens.count(1)
        seconds = (self.decode if decoding else 0) + self.token * (step.total_tokens - decoding)
        self.pauses += [seconds] * decoding
        self.steps += 1
        return seconds


def settle(machine: Machine) -> None:
    """One request, so that both times are known."""
    machine.driver.add([0] * 200, 20)
    machine.driver.run()
    machine.pauses.clear()


def test_nobody_waits_much_longer_than_usual_for_the_next_token(seed):
    rng = random.Random(seed)
    for _ in range(5):
        decode, token = rng.uniform(0.002, 0.3), rng.uniform(2e-5, 1e-2)
        machine = Machine(decode, token)
        settle(machine)
        for _ in range(12):
            machine.driver.add([rng.randint(0, 1) for _ in range(rng.randint(100, 900))], 60)
            for _ in range(rng.randint(0, 20)):
                machine.driver.step()
        machine.driver.run()
        # The least share, if that is more; and a little more where the average lags behind.
        allowed = decode + max(RATIO * decode, LEAST * token)
        assert max(machine.pauses) <= 1.05 * allowed
        assert machine.pauses.count(decode) > 0


def test_prompts_alone_take_steps_of_their_own_length():
    machine = Machine(decode=0.01, token=0.0005)
    settle(machine)
    pace = machine.driver.scheduler.pace
    assert pace.prompt_tokens(0) == pytest.approx(ALONE_SECONDS / 0.0005, rel=0.01)
    assert pace.prompt_tokens(3) == pytest.approx(max(LEAST, RATIO * 0.01 / 0.0005), rel=0.02)


def test_of_prompts_that_come_together_the_first_answers_before_the_last_is_read():
    machine = Machine(decode=0.01, token=0.0005)
    settle(machine)
    first, *_, last = [machine.driver.add([i % 2, i // 2 % 2, i // 4] * 80, 100) for i in range(8)]
    while len(first.tokens) == first.num_prompt:
        machine.driver.step()
    assert last.num_computed == 0


def test_one_slow_step_changes_little():
    pace = Pace()
    for _ in range(3):
        pace.observe(200, 0, 0.1)
        pace.observe(0, 4, 0.01)
    before = pace.prompt_tokens(4)
    pace.observe(0, 4, 5.0)  # something else ran on the machine
    assert before < pace.prompt_tokens(4) <= 1.4 * before
    pace.observe(200, 0, 50.0)
    assert 0.7 * before <= pace.prompt_tokens(4) <= 1.4 * before


def test_before_anything_is_measured():
    assert Pace().prompt_tokens(0) == Pace().prompt_tokens(5) == 2 * LEAST


def test_sequences_that_are_not_cut_are_not_paced():
    machine = Machine(decode=0.01, token=0.01)
    settle(machine)
    driver = machine.driver
    driver.scheduler.whole_sequences = True
    request = driver.add([0] * 1500, 1)
    driver.step()
    assert request.state is State.FINISHED
