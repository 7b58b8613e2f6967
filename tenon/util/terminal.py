"""What is shown while something takes its time: always on standard error, and only to a person."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@cache
def console() -> Console:
    """Standard error; plain when it is no terminal."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@contextlib.contextmanager
def working(text: str) -> Iterator[None]:
    """A spinner for as long as the block takes; nothing when nobody watches."""
    screen = console()
    if not screen.is_terminal:
        yield
        return
    with screen.status(text):
        yield


@contextlib.contextmanager
def loading(model: str, doing: str = "loading") -> Iterator[Callable[[int, int], None]]:
    """A progress bar over the weights of a model; the block calls what it gets with bytes done and in all."""
    screen = console()
    if not screen.is_terminal:
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(f"{doing} {model}", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def counting(text: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar over `total` steps; the block calls what it gets after each step."""
    screen = console()
    if not screen.is_terminal:
        yield lambda: None
        return
    from rich.progress import Progress

    with Progress(console=screen, transient=True) as bar:
        task = bar.add_task(text, total=total)
        yield lambda: bar.advance(task)
