"""`tenon serve`."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import rich_click as click

from tenon import env
from tenon.cli.options import Size, engine_options, output_format_option
from tenon.config import EngineArgs
from tenon.errors import ConfigError


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, default=8000, show_default=True, metavar="N", help="Port; 0: any free one.")
@click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    metavar="TEXT",
    help="Ask clients for this key (default: TENON_API_KEY); may be given again. Keys share no prefixes.",
)
@click.option("--share-prefix-cache", is_flag=True, help="One prefix cache for all keys.")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a limit of what clients may send, like body_bytes=16MiB; may be given again.",
)
@click.option(
    "--drain-seconds",
    type=float,
    default=10.0,
    show_default=True,
    metavar="X",
    help="How long requests in flight may go on after a stop signal.",
)
@output_format_option
@click.option("--reasoning-content", is_flag=True, help="Send reasoning as `reasoning_content` too.")
@click.option(
    "--template-variable",
    "template_variables",
    multiple=True,
    metavar="NAME",
    help="Let requests set this variable of the chat template too (chat_template_kwargs).",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default=None,
    metavar="LEVEL",
    help="What to log on standard error: debug, info, warning or error (default: TENON_LOG_LEVEL, or info).",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where files and batches are kept (default: `data` below TENON_HOME).",
)
@click.option(
    "--batch-concurrency",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    metavar="N",
    help="Most lines of batches that run at a time.",
)
@click.option(
    "--max-loaded-models",
    type=click.IntRange(min=1),
    metavar="N",
    help="Of several models, how many are loaded at a time (default: as many as fit).",
)
@click.option(
    "--max-resident-memory",
    type=Size(),
    metavar="BYTES",
    help="Of several models, what weights and KV caches may take together (default: from free memory).",
)
@click.option(
    "--load-wait-seconds",
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    metavar="X",
    help="How long a request waits for its model to be loaded, before it gets 503.",
)
@engine_options(several=True)
def command(
    engines: list[EngineArgs],
    host: str,
    port: int,
    api_keys: tuple[str, ...],
    share_prefix_cache: bool,
    limits: tuple[str, ...],
    drain_seconds: float,
    output_format: str,
    reasoning_content: bool,
    template_variables: tuple[str, ...],
    log_level: str | None,
    data_dir: Path | None,
    batch_concurrency: int,
    max_loaded_models: int | None,
    max_resident_memory: int | None,
    load_wait_seconds: float,
) -> int:
    """Serve models over an OpenAI-compatible HTTP API.

    `tenon serve` serves SmolLM2-135M-Instruct on http://127.0.0.1:8000. MODEL can also be a directory in
    Hugging Face format, a .gguf file, or the id of a Hugging Face repository. Of several MODELs the first is
    loaded at once, each other one when a request names it.
    """
    from tenon.cli.models import ensure_here
    from tenon.server.limits import Limits
    from tenon.server.run import serve
    from tenon.server.settings import ResidencySettings, ServerSettings
    from tenon.util.terminal import loading

    if output_format != "auto":
        from tenon.parse import formats

        formats.load(output_format)
    level = (log_level or env.log_level()).upper()
    if level not in logging.getLevelNamesMapping():
        raise ConfigError(f"TENON_LOG_LEVEL={level.lower()}: must be debug, info, warning or error")
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for engine in engines:
        if engine.load_format == "auto":
            ensure_here(engine.model, engine.revision)
    settings = ServerSettings.with_keys(
        api_keys or tuple(filter(None, [env.api_key()])),
        share_prefix_cache=share_prefix_cache,
        limits=Limits.parse(limits),
        drain_seconds=drain_seconds,
        output_format=output_format,
        reasoning_content=reasoning_content,
        template_variables=template_variables,
        data_dir=data_dir,
        batch_concurrency=batch_concurrency,
    )
    residency = ResidencySettings(max_loaded_models, max_resident_memory, load_wait_seconds)
    with contextlib.ExitStack() as until_ready:
        on_loading = until_ready.enter_context(loading(engines[0].model))

        def announce(line: str) -> None:
            until_ready.close()
            click.echo(line)

        return serve(
            engines, host, port, settings, announce=announce, on_loading=on_loading, residency=residency
        )
