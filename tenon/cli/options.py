"""Command-line options made from the fields of `EngineArgs`, so that an argument is defined once."""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rich_click as click
from click.core import ParameterSource

from tenon import env
from tenon.config import EngineArgs, parse_bytes, read_models
from tenon.errors import ConfigError
from tenon.util.secret import Secret, hide_in_command_line

PANEL = "Engine"
output_format_option = click.option(
    "--output-format",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="How the model writes reasoning and tool calls; auto: by its chat template.",
)
_FIELDS = {field.name: field for field in dataclasses.fields(EngineArgs)}


def engine_options(*, several: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: an optional MODEL argument and a flag per engine argument; the command gets `engine`.

    With `several` there may be more than one MODEL, and the command gets `engines`, a list.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        taken = [name for name in _FIELDS if name != "model"]

        @functools.wraps(function)
        def with_engine(*args: Any, **kwargs: Any) -> Any:
            given = {name: kwargs.pop(name) for name in ("model", *taken)}
            if several:
                models = [*given.pop("model"), *kwargs.pop("more_models")]
                engines = _each(models, kwargs.pop("models_file"), EngineArgs(**given))
                return function(*args, engines=engines, **kwargs)
            return function(*args, engine=EngineArgs(**given), **kwargs)

        decorated: Callable[..., Any] = with_engine
        for name in reversed(taken):
            decorated = _option(_FIELDS[name])(decorated)
        model = _FIELDS["model"]
        decorated = click.option_panel("Options")(click.option_panel(PANEL)(decorated))
        if several:
            decorated = click.option(
                "--models-file",
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="TOML file with a table for each model: its `model`, and engine arguments of its own.",
                panel=PANEL,
            )(decorated)
            decorated = click.option(
                "--model",
                "more_models",
                multiple=True,
                metavar="[NAME=]MODEL",
                help="A model, as MODEL is; may be given again.",
                panel=PANEL,
            )(decorated)
            return click.argument(
                "model", nargs=-1, metavar="[[NAME=]MODEL]...", help=f"{model.metadata['help']}; several too"
            )(decorated)
        return click.argument(
            "model", required=False, default=model.default, metavar="[MODEL]", help=model.metadata["help"]
        )(decorated)

    return decorate


def _each(models: Sequence[str], file: Path | None, shared: EngineArgs) -> list[EngineArgs]:
    """Arguments for each of several models, which may be called by names of the user's own (NAME=MODEL)."""
    engines = []
    for text in models or ([] if file else [shared.model]):
        name, separator, model = text.partition("=")
        named = bool(separator) and not Path(text).exists()
        if named and not (name and model):
            raise ConfigError(f"{text!r}: write NAME=MODEL, or MODEL alone")
        model = model if named else text
        served: Any = [name] if named else shared.served_model_name
        engines.append(dataclasses.replace(shared, model=model, served_model_name=served))
    if file is not None:
        engines += read_models(file, shared)
    for argument in ("served_model_name", "revision", "tokenizer", "chat_template"):
        if len(engines) > 1 and getattr(shared, argument) is not None:
            flag = f"--{argument.replace('_', '-')}"
            raise ConfigError(f"{flag} is for one model: give it in a --models-file, for each")
    return engines


def given_engine_options(ctx: click.Context) -> list[str]:
    """MODEL and the engine's flags that stand on the command line."""
    return [
        param.opts[0] if isinstance(param, click.Option) else param.name.upper()
        for param in ctx.command.params
        if param.name in _FIELDS and ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    ]


def as_flags(message: str) -> str:
    """`message` with engine arguments as they are typed: --kv-cache-memory for kv_cache_memory.

    A name that is an ordinary word too, like seed, counts where a message begins with it.
    """
    names = "|".join(name if "_" in name else f"^{name}(?= must)" for name in _FIELDS)
    return re.sub(rf"\b(?:{names})\b", lambda match: f"--{match[0].replace('_', '-')}", message)


def _option(field: dataclasses.Field[Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option of one field: `--max-model-len N`, `--flag/--no-flag`, or a choice."""
    name = field.name.replace("_", "-")
    help = field.metadata["help"] + "."
    settings: dict[str, Any] = {"default": field.default, "help": help, "panel": PANEL}
    kind = _kind(typing.get_type_hints(EngineArgs)[field.name])
    if kind is bool:
        return click.option(f"--{name}/--no-{name}", field.name, show_default=True, **settings)
    settings["show_default"] = field.default is not None
    choices = field.metadata.get("choices")
    if choices:
        settings["type"] = click.Choice(choices)
        settings["metavar"] = "NAME"  # the help lists them: a wide column would break the names of options
    else:
        settings["type"] = kind
        settings["metavar"] = field.metadata.get("metavar") or {int: "N", float: "X"}.get(kind, "TEXT")
    return click.option(f"--{name}", field.name, **settings)


class SecretText(click.ParamType):
    """A key. It is overwritten where the machine's other users can see this process' command line."""

    name = "TEXT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Secret:
        if isinstance(value, Secret):
            return value
        secret = Secret(value)
        hide_in_command_line(secret)
        return secret


def key_or_environment(given: Secret | None) -> Secret | None:
    """What --api-key says, or TENON_API_KEY."""
    key = env.api_key()
    return given or (Secret(key) if key else None)


class Seconds(click.FloatRange):
    """A time that a timer can be set for."""

    MOST = 1e9

    def __init__(self, least: float = 0) -> None:
        super().__init__(min=least)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)
        if not seconds <= self.MOST:  # nan is not, either
            self.fail(f"{value!r} is not a number of seconds, at most {self.MOST:.0f}", param, ctx)
        return seconds


class Size(click.ParamType):
    """A number of bytes, as `2GiB`."""

    name = "BYTES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_bytes(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _kind(hint: Any) -> type:
    """The type a flag's value is read as: that of `int | None` is int, of anything with text in it str."""
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = [member for member in members if member in (bool, int, float, str)]
    return str if str in kinds else kinds[0]
