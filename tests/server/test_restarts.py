"""When an engine that died is started again."""

from __future__ import annotations

from tenon.server.restarts import LONGEST_DELAY, Restarts
from tenon.server.settings import RestartSettings


def test_the_first_restart_is_at_once_and_the_next_ones_wait_longer():
    restarts = Restarts()
    assert [restarts.died(float(i)) for i in range(6)] == [0, 0.5, 1, 2, 4, None]
    assert restarts.total == 5


def test_no_restart_waits_longer_than_a_client_does():
    restarts = Restarts(RestartSettings(max_restarts=1000))
    assert {restarts.died(0.0) for _ in range(1000)} == {0, 0.5, 1, 2, LONGEST_DELAY}


def test_deaths_are_forgotten_after_a_while():
    restarts = Restarts(RestartSettings(max_restarts=2, window_seconds=100))
    assert restarts.died(0.0) == 0
    assert restarts.died(60.0) == 0.5
    assert restarts.blocked(60.0) == 0
    assert restarts.died(70.0) is None
    assert restarts.blocked(70.0) == 30
    assert restarts.blocked(100.0) == 0
    assert restarts.died(170.0) == 0


def test_no_restart_at_all():
    restarts = Restarts(RestartSettings(max_restarts=0, window_seconds=10))
    assert restarts.died(5.0) is None
    assert restarts.blocked(7.0) == 8
