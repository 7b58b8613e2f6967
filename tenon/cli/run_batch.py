"""`tenon run-batch`: a file of requests in, a file of answers out."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import tempfile
import time
from pathlib import Path

import rich_click as click

from tenon.cli.options import engine_options, output_format_option
from tenon.config import EngineArgs
from tenon.errors import ConfigError


@click.command("run-batch")
@click.option(
    "-i", "--input", "source", required=True, metavar="FILE", help="Requests, as JSON Lines; - is stdin."
)
@click.option("-o", "--output", "out", required=True, metavar="FILE", help="Results; - is stdout.")
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    metavar="N",
    help="Most lines that run at a time.",
)
@output_format_option
@engine_options()
def command(engine: EngineArgs, source: str, out: str, concurrency: int, output_format: str) -> int:
    """Answer a file of requests, in the format of OpenAI's batch API, without a server.

    `tenon run-batch -i requests.jsonl -o answers.jsonl smollm2`. A run that was ended goes on when the same
    command is given again. The exit status is 1 if a line has failed.
    """
    with tempfile.TemporaryDirectory(prefix="tenon-") as directory:
        return asyncio.run(_run(engine, _input(source, Path(directory)), out, concurrency, output_format))


def _input(source: str, directory: Path) -> Path:
    """A file that can be read more than once. Raises ConfigError."""
    if source != "-":
        path = Path(source)
        if not path.is_file():
            raise ConfigError(f"{source}: no such file")
        return path
    path = directory / "stdin.jsonl"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return path


async def _run(args: EngineArgs, source: Path, out: str, concurrency: int, output_format: str) -> int:
    from tenon.cli.engine import started
    from tenon.server.app import build_app
    from tenon.server.offline import Part, Sink, run_file
    from tenon.server.settings import ServerSettings
    from tenon.util.terminal import console, counting

    if output_format != "auto":
        from tenon.parse import formats

        formats.load(output_format)
    sink = Sink(sys.stdout.buffer) if out == "-" else Part(Path(out), source)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(sink.close)
        engine = await stack.enter_async_context(started(args))
        app = build_app(engine, ServerSettings(output_format=output_format), engine.served_model_names)  # type: ignore[arg-type]
        began = time.monotonic()
        counts = await run_file(app, source, sink, concurrency, lambda total: counting("answering", total))
    resumed = f", {counts.resumed} of them before" if counts.resumed else ""
    console().print(
        f"{counts.total} lines: {counts.completed} answered, {counts.failed} failed"
        f"{resumed}, in {time.monotonic() - began:.1f} s"
    )
    return 1 if counts.failed else 0
