"""Progress is for people: on a terminal it shows what is done, elsewhere nothing at all."""

import io

import pytest
from rich.console import Console

from tenon.util import terminal


@pytest.fixture(params=[True, False], ids=["terminal", "file"])
def screen(request, monkeypatch):
    made = Console(file=io.StringIO(), force_terminal=request.param, width=100)
    monkeypatch.setattr(terminal, "console", lambda: made)
    return made


def check(screen: Console, *words: str) -> None:
    shown = screen.file.getvalue()
    assert bool(shown) == screen.is_terminal
    for word in words if screen.is_terminal else ():
        assert word in shown


def test_loading(screen):
    with terminal.loading("some-model") as on_loading:
        on_loading(5_000_000, 20_000_000)
        on_loading(20_000_000, 20_000_000)
    check(screen, "loading some-model", "20.0/20.0 MB")


def test_counting(screen):
    with terminal.counting("runs", 3) as step:
        for _ in range(3):
            step()
    check(screen, "runs", "100%")


def test_working(screen):
    with terminal.working("thinking"):
        pass
    check(screen, "thinking")


def test_the_screen_is_standard_error():
    assert terminal.console().stderr
