"""Deadlines of one request, on a clock of the test's own."""

import pytest

from tenon.server.deadline import FIRST_TOKEN_HEADER, QUEUE_HEADER, TOTAL_HEADER, Deadlines, Watch
from tenon.server.errors import ApiError
from tenon.server.limits import Limits

SECONDS = {"queued": 10, "taken_up": 30, "spoke": 100}
LIMITS = Limits(queue_seconds=10, first_token_seconds=30, total_seconds=100)


def test_a_client_may_ask_for_less_and_never_for_more():
    assert Deadlines.of(LIMITS, {}) == Deadlines(10, 30, 100)
    headers = {QUEUE_HEADER: "1500", FIRST_TOKEN_HEADER: "99999999", TOTAL_HEADER: "1"}
    assert Deadlines.of(LIMITS, headers) == Deadlines(1.5, 30, 0.001)


def test_without_a_limit_the_clients_own_counts():
    none = Limits(queue_seconds=0, first_token_seconds=0, total_seconds=0)
    assert Deadlines.of(none, {}) == Deadlines()
    assert Deadlines.of(none, {TOTAL_HEADER: "5000000"}) == Deadlines(total=5000)


def test_what_nobody_waits_for_has_only_the_deadlines_it_asks_for():
    assert Deadlines.of(LIMITS, {}, attended=False) == Deadlines()
    assert Deadlines.of(LIMITS, {TOTAL_HEADER: "5000000"}, attended=False) == Deadlines(total=5000)


@pytest.mark.parametrize("name", [QUEUE_HEADER, FIRST_TOKEN_HEADER, TOTAL_HEADER])
@pytest.mark.parametrize("value", ["", "0", "000", "-1", "1.5", "1e3", "soon", "9" * 13, "\u0661"])
def test_a_header_that_is_no_time_is_refused(name, value):
    with pytest.raises(ApiError) as caught:
        Deadlines.of(LIMITS, {name: value})
    assert (caught.value.status, caught.value.param) == (400, name)


def watch(now: list[float]) -> Watch:
    one = Watch(Deadlines(10, 30, 100), arrival=0.0, clock=lambda: now[0])
    assert one.next() is None, "not for a model yet"
    one.admitted()
    return one


def test_the_next_deadline_is_that_of_the_state():
    now = [0.0]
    one = watch(now)
    assert one.next() == (30, "first_token")
    now[0] = 5.0
    one.queued()
    assert one.next() == (15, "queue")
    now[0] = 7.0
    one.queued()  # told again
    assert one.left() == 8
    one.taken_up()
    assert one.next() == (30, "first_token")
    one.spoke()
    assert one.next() == (100, "total")
    now[0] = 101.0
    assert one.left() == -1


@pytest.mark.parametrize(
    ("state", "status", "code"),
    [
        ("queued", 503, "queue_timeout"),
        ("taken_up", 504, "first_token_timeout"),
        ("spoke", 504, "request_timeout"),
    ],
)
def test_what_is_told(state, status, code):
    one = watch([0.0])
    one.queued()
    getattr(one, state)()
    error = one.error({"retry-after": "7"})
    assert (error.status, error.code) == (status, code)
    assert error.headers == ({"retry-after": "7"} if state == "queued" else {"x-should-retry": "false"})
    assert f"{SECONDS[state]} s" in error.message
