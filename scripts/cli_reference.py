"""Write docs/reference/cli.md from the command line itself. A test checks that it is current."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from tenon import cli

PATH = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"
HEAD = """# The command line

Made from the code by `make docs`. `python -m tenon` is the same as `tenon`, but not for a directory that others can
write to or that came with a model: `python -m` looks for modules in the current directory first, `python -P -m` does not.
"""  # noqa: E501


def commands(
    path: tuple[str, ...], command: click.Command
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """A command and all below it, depth first."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands((*path, name), inner)


def section(path: tuple[str, ...], command: click.Command) -> str:
    name = " ".join(path)
    lines = [f"## `{name}`", "", " ".join((command.help or "").split()), ""]
    arguments = [param.make_metavar(click.Context(command)) for param in command.params if is_argument(param)]
    usage = " ".join(
        [name, *(["COMMAND"] if isinstance(command, click.Group) else []), *arguments, "[OPTIONS]"]
    )
    lines += ["```sh", usage, "```", ""]
    options = [param for param in command.params if isinstance(param, click.Option)]
    if options:
        lines += ["| option | meaning | default |", "|---|---|---|"]
        lines += [row(option) for option in options]
        lines.append("")
    return "\n".join(lines)


def is_argument(param: click.Parameter) -> bool:
    return isinstance(param, click.Argument)


def row(option: click.Option) -> str:
    flags = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
    value = "" if option.is_flag else f" {cell(option.make_metavar(click.Context(click.Command('x'))))}"
    default = "" if option.is_flag and not option.secondary_opts else shown(option.default)
    return f"| {flags}{value} | {cell(option.help or '')} | {default} |"


def shown(default: object) -> str:
    plain = isinstance(default, str | int | float)
    return f"`{str(default).lower() if isinstance(default, bool) else default}`" if plain else ""


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def reference() -> str:
    return "\n".join([HEAD, *(section(path, command) for path, command in commands(("tenon",), cli.tenon))])


if __name__ == "__main__":
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(reference())
