"""Queues in front of models, on a clock of the test's own."""

import math
import random

import pytest

from tenon.server.admission import ENOUGH_SECONDS, LEAST_WAIT, LONGEST_WAIT, Admission
from tenon.server.errors import ApiError
from tenon.server.limits import Limits


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def admission(clock: Clock, draw=lambda: 1.0, **limits) -> Admission:
    return Admission(Limits(**limits), clock, draw)


def refused(ask, *args, **fields) -> ApiError:
    with pytest.raises(ApiError) as caught:
        ask(*args, **fields)
    assert caught.value.status == 429
    milliseconds = int(caught.value.headers["retry-after-ms"])
    assert int(caught.value.headers["retry-after"]) == math.ceil(milliseconds / 1000)
    assert 1000 * LEAST_WAIT <= milliseconds <= 1000 * LONGEST_WAIT
    return caught.value


def test_bounded_in_requests(clock):
    queue = admission(clock, queued_requests=3)
    places = [queue.ask("m", "") for _ in range(3)]
    assert queue.full("m")
    assert not queue.full("other")
    error = refused(queue.ask, "m", "")
    assert error.code == "overloaded"
    assert queue.refusals["m", "requests"] == 1
    queue.ask("other", "")
    places[0].started(1)
    assert not queue.full("m")
    queue.ask("m", "")
    refused(queue.ask, "m", "")
    places[1].close()  # left without having been served
    places[1].close()
    queue.ask("m", "")


def test_choices_count_each(clock):
    queue = admission(clock, queued_requests=4)
    place = queue.ask("m", "", choices=3)
    refused(queue.ask, "m", "", choices=2)
    place.started(2)
    queue.ask("m", "", choices=3)
    place.started(5)  # never more than it has
    assert queue.queues["m", True].total.choices == 3


def test_bounded_in_tokens_estimated_and_then_known(clock):
    queue = admission(clock, queued_tokens=1000)
    place = queue.ask("m", "", size=3000)
    assert queue.queues["m", True].total.tokens == 750
    refused(queue.ask, "m", "", size=2000)
    place.tokenised(100, 3000)
    place.tokenised(50, 3000)  # its second prompt
    assert queue.queues["m", True].total.tokens == 150
    queue.ask("m", "", size=2000)
    place.started(1)
    place.close()
    assert queue.refusals["m", "tokens"] == 1


def test_the_estimate_follows_what_requests_turn_out_to_be(clock):
    queue = admission(clock)
    for _ in range(200):
        place = queue.ask("m", "", size=1000)
        place.tokenised(900, 1000)
        place.close()
    place = queue.ask("m", "", size=1000)
    assert queue.queues["m", True].total.tokens == pytest.approx(900, rel=0.01)


def test_prompts_of_one_request_are_learned_from_together(clock):
    queue = admission(clock)
    for _ in range(200):
        place = queue.ask("m", "", choices=10, size=1000)
        for _ in range(10):
            place.tokenised(90, 1000)
        place.started(10)
        place.close()
    queue.ask("m", "", size=1000)
    assert queue.queues["m", True].total.tokens == pytest.approx(900, rel=0.01)


def test_a_big_request_gets_in_while_there_is_room(clock):
    queue = admission(clock, queued_requests=4, queued_tokens=100)
    place = queue.ask("m", "", choices=50, size=4000)
    refused(queue.ask, "m", "")
    place.started(50)
    queue.ask("m", "", size=4000)


def test_a_caller_with_little_gets_into_a_full_queue(clock):
    queue = admission(clock, queued_requests=10)
    for _ in range(10):
        queue.ask("m", "greedy")
    refused(queue.ask, "m", "greedy")
    for _ in range(5):
        queue.ask("m", "modest")
    refused(queue.ask, "m", "modest")
    for _ in range(3):
        queue.ask("m", "third")
    refused(queue.ask, "m", "third")
    refused(queue.ask, "m", "greedy")


def test_never_more_than_twice_the_bound(clock):
    queue = admission(clock, queued_requests=16, queued_tokens=160)
    for caller in range(200):
        for _ in range(16):
            try:
                queue.ask("m", str(caller), size=40)
            except ApiError:
                break
    assert queue.queues["m", True].total.choices <= 32
    assert queue.queues["m", True].total.tokens <= 320


def test_background_work_has_bounds_of_its_own_and_counts_until_it_ends(clock):
    queue = admission(clock, queued_requests=1, background_requests=2)
    queue.ask("m", "")
    first = queue.ask("m", "", attended=False)
    queue.ask("m", "", attended=False)
    first.started(1)
    refused(queue.ask, "m", "", attended=False)
    first.close()
    queue.ask("m", "", attended=False)
    assert queue.full("m")


def serve(queue: Admission, clock: Clock, seconds: float, per_second: float, tokens: int = 10) -> None:
    """A queue of one, served at a rate."""
    place = queue.ask("m", "", size=4 * tokens)
    for _ in range(int(seconds * per_second)):
        clock.now += 1 / per_second
        place.started(1)
        place.close()
        place = queue.ask("m", "", size=4 * tokens)
    place.close()


@pytest.mark.parametrize("per_second", [0.5, 2.0, 40.0])
def test_the_time_to_come_back_is_that_of_the_queue_at_the_measured_rate(clock, per_second):
    queue = admission(clock, queued_requests=20)
    serve(queue, clock, 60, per_second)
    for _ in range(20):
        queue.ask("m", "")
    error = refused(queue.ask, "m", "")
    expected = min(max(20 / per_second, LEAST_WAIT), LONGEST_WAIT)
    assert int(error.headers["retry-after-ms"]) == pytest.approx(1000 * expected, rel=0.05)
    early = admission(clock, draw=lambda: 0.0, queued_requests=20)
    serve(early, clock, 60, per_second)
    for _ in range(20):
        early.ask("m", "")
    half = int(refused(early.ask, "m", "").headers["retry-after-ms"])
    assert half == pytest.approx(1000 * min(max(10 / per_second, LEAST_WAIT), LONGEST_WAIT), rel=0.05)


def test_the_rate_counts_only_time_with_a_queue_and_forgets(clock):
    queue = admission(clock, queued_requests=20)
    serve(queue, clock, 30, 2)
    clock.now += 3600  # idle
    assert queue.queues["m", True].wait("", clock.now) == 0.0
    for _ in range(20):
        queue.ask("m", "")
    assert queue.queues["m", True].wait("", clock.now) == pytest.approx(10, rel=0.1)
    faster = admission(clock)
    serve(faster, clock, 100, 1)
    serve(faster, clock, 100, 10)
    for _ in range(100):
        faster.ask("m", "")
    assert faster.queues["m", True].wait("", clock.now) == pytest.approx(10, rel=0.1)


def test_nothing_is_promised_before_the_rate_is_known(clock):
    queue = admission(clock, queued_requests=1)
    queue.ask("m", "").started(1)
    queue.ask("m", "")
    clock.now += ENOUGH_SECONDS / 2
    assert refused(queue.ask, "m", "").headers["retry-after"] == "1"
    assert queue.retry_after("m", "") == 1.0


def test_who_would_wait_too_long_is_told_at_once(clock):
    queue = admission(clock, queued_requests=100)
    serve(queue, clock, 30, 2)
    for _ in range(30):
        queue.ask("m", "a", patience=60)
    assert queue.ask("m", "a", patience=60)
    error = refused(queue.ask, "m", "a", patience=10)
    assert "longer than this request would wait" in error.message
    assert queue.refusals["m", "wait"] == 1
    assert queue.ask("m", "b", patience=10), "b has nothing here, and does not wait for all of a's"


def test_quiet_is_when_nobody_waits_for_an_answer(clock):
    queue = admission(clock)
    background = queue.ask("m", "", attended=False)
    assert queue.quiet
    one, two = queue.ask("m", ""), queue.ask("other", "")
    one.started(1)
    one.close()
    assert not queue.quiet
    two.close()
    assert queue.quiet
    background.close()


def test_counts_return_to_nothing(clock):
    """Whatever happens to requests, in whatever order, what is left is what is open."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    queue = admission(clock, queued_requests=40, queued_tokens=2000, key_requests=60)
    places = []
    for _ in range(3000):
        clock.now += rng.expovariate(50)
        if rng.random() < 0.5:
            try:
                places.append(
                    queue.ask(
                        rng.choice("mn"),
                        rng.choice("abc"),
                        choices=rng.randint(1, 4),
                        size=rng.randint(0, 999),
                        attended=rng.random() < 0.7,
                        patience=rng.choice([None, 1.0, 60.0]),
                    )
                )
            except ApiError:
                continue
        elif places:
            place = rng.choice(places)
            what = rng.random()
            if what < 0.3:
                place.tokenised(rng.randint(1, 300), 500)
            elif what < 0.7:
                place.started(rng.randint(1, 3))
            else:
                place.close(rng.randint(0, 50))
                places.remove(place)
        for line in queue.queues.values():
            assert line.total.choices == sum(load.choices for load in line.shares.values()) >= 0, seed
            assert line.total.tokens == sum(load.tokens for load in line.shares.values()) >= 0, seed
    for place in places:
        place.close()
    assert queue.quiet
    assert all(not (line.total.choices or line.total.tokens or line.shares) for line in queue.queues.values())
    assert not queue.quotas._accounts


def test_a_key_has_a_limit_of_requests_in_flight(clock):
    queue = admission(clock, key_requests=2)
    first = queue.ask("m", "a")
    first.started(1)
    queue.ask("n", "a")
    error = refused(queue.ask, "m", "a")
    assert error.code == "rate_limit_exceeded"
    assert queue.refusals["m", "key_requests"] == 1
    queue.ask("m", "b")
    first.close()
    queue.ask("m", "a")


def test_a_key_has_a_limit_of_tokens_per_minute(clock):
    queue = admission(clock, key_tokens_per_minute=600)
    place = queue.ask("m", "a", size=400)
    place.tokenised(300, 400)
    place.close(generated=900)  # 600 more than there were
    error = refused(queue.ask, "m", "a")
    assert error.code == "rate_limit_exceeded"
    assert int(error.headers["retry-after-ms"]) == LONGEST_WAIT * 1000
    clock.now += 50
    assert int(refused(queue.ask, "m", "a").headers["retry-after-ms"]) == pytest.approx(10_100, abs=1)
    queue.ask("m", "b")
    clock.now += 10.1
    queue.ask("m", "a").close()


def test_a_request_whose_prompt_was_never_known_costs_its_key_no_tokens(clock):
    queue = admission(clock, key_tokens_per_minute=600)
    queue.ask("m", "a", size=1 << 20).close()  # refused for something else: not what it was estimated at
    queue.ask("m", "a", size=400).close()
