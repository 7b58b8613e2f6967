"""`tenon serve`."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import rich_click as click

from tenon import env
from tenon.cli.options import Seconds, SecretText, Size, engine_options, output_format_option
from tenon.config import EngineArgs
from tenon.engine.heartbeat import LEAST_PATIENCE
from tenon.errors import ConfigError

if TYPE_CHECKING:
    from tenon.server.keys import Keys
    from tenon.server.tls import Certificate
    from tenon.util.secret import Secret


_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, default=8000, show_default=True, metavar="N", help="Port; 0: any free one.")
@click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    type=SecretText(),
    help="Ask clients for this key (default: TENON_API_KEY); may be given again. Other users of this machine "
    "may see a command line before the key in it is overwritten: better use --api-keys-file.",
)
@click.option(
    "--api-keys-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Ask clients for one of the keys in this file (see `tenon keys`); its changes hold at once.",
)
@click.option("--public-metrics", is_flag=True, help="Let /metrics be read without a key.")
@click.option(
    "--insecure-no-auth", is_flag=True, help="Listen beyond this machine although no key is asked for."
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="Answer to this name in the Host header too; on a loopback address only localhost is known. *: any.",
)
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let web pages of this origin (https://app.example) use the server; may be given again. *: all.",
)
@click.option("--tls-cert", type=_FILE, metavar="FILE", help="Serve HTTPS with this certificate chain (PEM).")
@click.option("--tls-key", type=_FILE, metavar="FILE", help="Its key, unless that is in the same file.")
@click.option(
    "--tls-client-ca",
    type=_FILE,
    metavar="FILE",
    help="Ask clients for a certificate that one of these authorities (PEM) has signed.",
)
@click.option(
    "--admin-socket",
    type=_FILE,
    metavar="PATH",
    help="Answer the operator's routes (see docs/access.md) on this Unix socket, which only you can open.",
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
    "--sse-keep-alive-interval",
    type=Seconds(),
    default=15.0,
    show_default=True,
    metavar="X",
    help="Seconds without an event after which a stream gets a comment; 0: none.",
)
@click.option(
    "--drain-seconds",
    type=Seconds(),
    default=25.0,
    show_default=True,
    metavar="X",
    help="How long requests in flight may go on after a stop signal.",
)
@click.option(
    "--max-restarts",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    metavar="N",
    help="How often an engine that died is restarted within --restart-window, before it is given up.",
)
@click.option(
    "--restart-window",
    type=Seconds(),
    default=600.0,
    show_default=True,
    metavar="X",
    help="Seconds after which a restart is forgotten.",
)
@click.option(
    "--stall-seconds",
    type=Seconds(LEAST_PATIENCE),
    default=9.0,
    show_default=True,
    metavar="X",
    help="Seconds without progress of the engine after which /ready says no; one that is frozen is killed. "
    f"At least {LEAST_PATIENCE:g}.",
)
@click.option(
    "--step-timeout",
    type=Seconds(LEAST_PATIENCE),
    default=60.0,
    show_default=True,
    metavar="X",
    help="Seconds without progress after which the engine is killed and started again in any case. "
    f"At least {LEAST_PATIENCE:g}.",
)
@click.option(
    "--load-timeout",
    type=Seconds(LEAST_PATIENCE),
    default=600.0,
    show_default=True,
    metavar="X",
    help="Seconds in which an engine that starts must get on by one weight; else it is killed. "
    f"At least {LEAST_PATIENCE:g}.",
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
    "--special-tokens",
    type=click.Choice(["prompts", "all", "none"]),
    default="prompts",
    show_default=True,
    metavar="WHERE",
    help="Where text like <|im_end|> of clients becomes the control token: in raw prompts, but not in chats"
    " (prompts); there too (all); nowhere (none).",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default=None,
    metavar="LEVEL",
    help="What to log on standard error: debug, info, warning or error (default: TENON_LOG_LEVEL, or info).",
)
@click.option(
    "--log-requests",
    is_flag=True,
    help="Log what is asked and answered, and the texts of errors; by default no log holds any of it.",
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
    type=Seconds(),
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
    api_keys: tuple[Secret, ...],
    api_keys_file: Path | None,
    public_metrics: bool,
    insecure_no_auth: bool,
    allowed_hosts: tuple[str, ...],
    cors_origins: tuple[str, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    admin_socket: Path | None,
    share_prefix_cache: bool,
    limits: tuple[str, ...],
    sse_keep_alive_interval: float,
    drain_seconds: float,
    max_restarts: int,
    restart_window: float,
    stall_seconds: float,
    step_timeout: float,
    load_timeout: float,
    output_format: str,
    reasoning_content: bool,
    template_variables: tuple[str, ...],
    special_tokens: Literal["prompts", "all", "none"],
    log_level: str | None,
    log_requests: bool,
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
    from tenon.engine.heartbeat import Patience
    from tenon.server.limits import Limits
    from tenon.server.origin import check_cors_origin
    from tenon.server.run import serve
    from tenon.server.settings import ResidencySettings, RestartSettings, ServerSettings
    from tenon.util.log import configure
    from tenon.util.terminal import loading

    if output_format != "auto":
        from tenon.parse import formats

        formats.load(output_format)
    level = (log_level or env.log_level()).upper()
    if level not in logging.getLevelNamesMapping():
        raise ConfigError(f"TENON_LOG_LEVEL={level.lower()}: must be debug, info, warning or error")
    configure(level, texts=log_requests)
    for engine in engines:
        if engine.load_format != "oracle":
            ensure_here(engine.model, engine.revision)
    settings = ServerSettings(
        keys=_keys(api_keys, api_keys_file),
        insecure=insecure_no_auth,
        public_metrics=public_metrics,
        log_requests=log_requests,
        admin_socket=admin_socket,
        allowed_hosts=allowed_hosts,
        cors_origins=tuple(map(check_cors_origin, cors_origins)),
        tls=_certificate(tls_cert, tls_key, tls_client_ca),
        share_prefix_cache=share_prefix_cache,
        limits=Limits.parse(limits),
        sse_keep_alive_seconds=sse_keep_alive_interval,
        drain_seconds=drain_seconds,
        output_format=output_format,
        reasoning_content=reasoning_content,
        template_variables=template_variables,
        special_tokens=special_tokens,
        data_dir=data_dir,
        batch_concurrency=batch_concurrency,
        restarts=RestartSettings(max_restarts, restart_window),
        patience=Patience(stall_seconds, step_timeout, load_timeout),
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


def _keys(given: tuple[Secret, ...], path: Path | None) -> Keys:
    from tenon.server.keys import Keys, hashed

    named = [hashed(f"option-{number}", key.reveal()) for number, key in enumerate(given, 1)]
    if not named and (key := env.api_key()):
        named = [hashed("TENON_API_KEY", key)]
    env.forget_api_key()
    return Keys(named, path)


def _certificate(chain: Path | None, key: Path | None, client_ca: Path | None) -> Certificate | None:
    if chain is None:
        if key is not None or client_ca is not None:
            raise ConfigError("--tls-key and --tls-client-ca need --tls-cert")
        return None
    from tenon.server.tls import Certificate

    return Certificate(chain, key, client_ca)
