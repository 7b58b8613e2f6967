"""The queue of waiting requests: fair between shares, first come first served within one."""

import random

import pytest

from tenon.core.messages import AddRequest
from tenon.core.request import Request
from tenon.core.sampling import SamplingParams
from tenon.engine.policy import MAX_LEVELS, OUTPUT_COST, POLICIES, FairQueue


def request(seq: int, share: str = "", prompt: int = 10, **fields) -> Request:
    add = AddRequest(
        request_id=str(seq),
        prompt_token_ids=[1] * prompt,
        params=SamplingParams(max_tokens=8, seed=0),
        share=share,
        **fields,
    )
    return Request(add, seq, 1000)


def fair(policy: str = "fcfs") -> FairQueue:
    return FairQueue(POLICIES[policy])


def take(queue: FairQueue, generated: int = 1) -> Request:
    """Serve the next request as a whole."""
    first = queue.first
    queue.remove(first)
    queue.charge(first, first.num_prompt - 1 + generated)
    return first


def test_one_share_is_first_come_first_served():
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    queue, waiting = fair(), []
    for seq in range(300):
        waiting.append(request(seq, prompt=rng.randint(1, 50)))
        queue.add(waiting[-1])
        if rng.random() < 0.3:
            gone = waiting.pop(rng.randrange(len(waiting)))
            queue.remove(gone)
        while waiting and rng.random() < 0.4:
            assert take(queue, rng.randint(1, 9)) is waiting.pop(0), f"seed {seed}"
    assert list(queue) == waiting


def test_shares_get_the_same_however_many_requests_they_send():
    queue = fair()
    for seq in range(100):
        queue.add(request(seq, "many"))
    for seq in range(100, 110):
        queue.add(request(seq, "few"))
    order = [take(queue).share for _ in range(20)]
    assert order == ["many", "few"] * 10


def test_tokens_count_and_generated_ones_more():
    queue = fair()
    for seq in range(60):
        queue.add(request(2 * seq, "long", prompt=98))
        queue.add(request(2 * seq + 1, "short", prompt=18))
    served = {"long": 0, "short": 0}
    for _ in range(60):
        served[take(queue).share] += 1
    assert served["short"] == 5 * served["long"]
    queue = fair()
    for seq in range(60):
        queue.add(request(2 * seq, "talks"))
        queue.add(request(2 * seq + 1, "reads"))
    served = {"talks": 0, "reads": 0}
    for _ in range(60):
        share = queue.first.share
        served[share] += 1
        take(queue, generated=13 if share == "talks" else 1)
    assert OUTPUT_COST == 2, "10 + 13 * 2 is three times 10 + 2"
    assert served["reads"] == pytest.approx(3 * served["talks"], abs=3)


def test_staying_away_saves_up_nothing():
    queue = fair()
    for seq in range(100):
        queue.add(request(seq, "busy"))
    queue.add(request(100, "guest"))
    for _ in range(50):
        take(queue)
    for seq in range(101, 150):
        queue.add(request(seq, "guest"))
    assert [take(queue).share for _ in range(20)].count("guest") in (10, 11)


def test_coming_and_going_gains_nothing():
    """One request at a time: its queue is empty after each, and what it got still counts."""
    queue, seq = fair(), 0
    served = {"greedy": 0, "steady": 0}
    for _ in range(10):
        queue.add(request(seq := seq + 1, "steady", prompt=10))
    for _ in range(200):
        if "greedy" not in {r.share for r in queue}:
            queue.add(request(seq := seq + 1, "greedy", prompt=100))
        one = take(queue)
        served[one.share] += one.num_prompt + OUTPUT_COST
        if one.share == "steady":
            queue.add(request(seq := seq + 1, "steady", prompt=10))
    assert served["greedy"] == pytest.approx(served["steady"], rel=0.1)


def test_the_difference_of_service_is_bounded():
    """VTC's bound (theorem 4.4): of two shares that always wait, twice the most that one turn can take."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    queue, seq, served = fair(), 0, {"a": 0, "b": 0, "c": 0}
    most = 50 + OUTPUT_COST * 20
    for share in served:
        for _ in range(3):
            queue.add(request(seq := seq + 1, share, prompt=rng.randint(1, 50)))
    for _ in range(2000):
        generated = rng.randint(1, 20)
        one = take(queue, generated)
        served[one.share] += one.num_prompt + OUTPUT_COST * generated
        for _ in range(rng.randint(1, 2)):
            queue.add(request(seq := seq + 1, one.share, prompt=rng.randint(1, 50)))
        assert max(served.values()) - min(served.values()) <= 2 * most, f"seed {seed}"


def test_who_is_next_stays_next():
    """A big request waits for room meanwhile: newcomers do not pass it, earlier ones of its share do."""
    queue = fair()
    queue.add(request(5, "a", prompt=900))
    queue.add(request(6, "b"))
    assert queue.first.seq == 5
    queue.charge(request(1, "a"), 18)
    assert queue.first.seq == 5
    queue.add(request(2, "a"))
    assert queue.first.seq == 2
    queue.remove(queue.first)
    assert queue.first.seq == 6, "the turn of a is over"


def test_levels_come_before_shares():
    queue = fair("priority")
    queue.add(request(1, "a", background=True))
    queue.add(request(2, "a", priority=3))
    queue.add(request(3, "a", priority=3))
    queue.add(request(4, "b", priority=3))
    queue.add(request(5, "a", priority=-1))
    assert [take(queue).seq for _ in range(5)] == [5, 2, 4, 3, 1]
    queue = fair()
    queue.add(request(1, "a", background=True))
    queue.add(request(2, "a", priority=3))
    queue.add(request(3, "a", priority=-1))
    assert [take(queue).seq for _ in range(3)] == [2, 3, 1]


def test_what_is_computed_again_is_charged_once():
    queue = fair()
    a, b = request(1, "a"), request(2, "b")
    queue.add(a)
    queue.add(b)
    for _ in range(5):
        queue.charge(a, 10)
    queue.charge(b, 11)
    assert queue.first is a


def test_levels_that_nobody_uses_are_forgotten():
    queue = fair("priority")
    for seq in range(10 * MAX_LEVELS):
        queue.add(request(seq, priority=seq))
        queue.remove(queue.first)
    assert len(queue._levels) <= MAX_LEVELS
    queue.forget()
    assert not queue._levels
    with pytest.raises(ValueError, match="not in this queue"):
        queue.remove(request(1))


def test_a_running_request_is_charged_though_its_level_was_forgotten():
    queue = fair("priority")
    running = request(0, "a", priority=1)
    queue.add(running)
    queue.add(request(1, "b", priority=1))  # from here on there is somebody to be compared with
    for each in list(queue):
        queue.remove(each)
    for seq in range(2, 2 + 2 * MAX_LEVELS):
        other = request(seq, "c", priority=seq)
        queue.add(other)
        queue.remove(other)
    queue.add(request(1000, "c", priority=1))
    queue.charge(running, running.num_prompt)
    queue.add(request(1001, "a", priority=1))
    assert queue.first.share == "c"
