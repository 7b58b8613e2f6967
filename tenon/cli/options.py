"""Command-line options made from the fields of `EngineArgs`, so that an argument is defined once."""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Callable
from typing import Any

import rich_click as click
from click.core import ParameterSource

from tenon.config import EngineArgs

PANEL = "Engine"
_FIELDS = {field.name: field for field in dataclasses.fields(EngineArgs)}


def engine_options() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: an optional MODEL argument and a flag per engine argument; the command gets `engine`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        taken = [name for name in _FIELDS if name != "model"]

        @functools.wraps(function)
        def with_engine(*args: Any, **kwargs: Any) -> Any:
            given = {name: kwargs.pop(name) for name in ("model", *taken)}
            return function(*args, engine=EngineArgs(**given), **kwargs)

        decorated: Callable[..., Any] = with_engine
        for name in reversed(taken):
            decorated = _option(_FIELDS[name])(decorated)
        model = _FIELDS["model"]
        decorated = click.option_panel("Options")(click.option_panel(PANEL)(decorated))
        return click.argument(
            "model", required=False, default=model.default, metavar="[MODEL]", help=model.metadata["help"]
        )(decorated)

    return decorate


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


def _kind(hint: Any) -> type:
    """The type a flag's value is read as: that of `int | None` is int, of anything with text in it str."""
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = [member for member in members if member in (bool, int, float, str)]
    return str if str in kinds else kinds[0]
