"""Getting a model's files onto this machine, with a progress bar."""

from __future__ import annotations

from tenon.core.files import ModelFiles
from tenon.resolve import resolve
from tenon.util.terminal import console

_STAGES = {"download": "downloading", "extract": "unpacking and checking"}


def ensure_here(model: str, revision: str | None = None) -> ModelFiles:
    """The model's files, pulled when a known short name is not here yet. Raises TenonError."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console(),
        transient=True,
    )
    tasks = {}

    def report(stage: str, done: int, total: int | None) -> None:
        if stage not in tasks:
            what = f"{_STAGES.get(stage, stage)} {model}"
            if console().is_terminal:
                bar.start()
            else:
                console().print(what)
            tasks[stage] = bar.add_task(what, total=total)
        bar.update(tasks[stage], completed=done, total=total)

    try:
        return resolve(model, revision, download=True, progress=report)
    finally:
        if bar.live.is_started:
            bar.stop()
