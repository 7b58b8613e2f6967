"""What was meant by a command or option that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import rich_click as click


class SuggestingGroup(click.RichGroup):
    """A group of commands that names the one with nearly the spelling that was given."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"there is no command {name!r}{did_you_mean(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


def correction(error: click.NoSuchOption) -> str:
    """The option that does not exist, and what it may have been."""
    options = [flag for param in error.ctx.command.params for flag in param.opts] if error.ctx else []
    names = [flag.removeprefix("--") for flag in options if flag.startswith("--")]
    return f"{error.option_name}{did_you_mean(error.option_name.lstrip('-'), names, '--')}"


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """`; did you mean serve?`, or nothing when no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"; did you mean {prefix}{near[0]}?" if near else ""
