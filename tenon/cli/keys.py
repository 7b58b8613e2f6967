"""`tenon keys`."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

_FILE = click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="The file of keys, as `tenon serve --api-keys-file` has it.",
)


@click.group("keys")
def command() -> None:
    """API keys in a file of hashes; a running server follows its changes."""


@command.command("add")
@click.argument("name")
@_FILE
def add(name: str, path: Path) -> int:
    """Make a key, print it this once, and store its hash under NAME."""
    from tenon.server.keys import add_key

    click.echo(add_key(path, name))
    return 0


@command.command("list")
@_FILE
def show(path: Path) -> int:
    """Names of the keys, and how their hashes begin."""
    from tenon.server.keys import check_mode, read_keys

    check_mode(path)
    for key in read_keys(path):
        click.echo(f"{key.name}  sha256:{key.id[:12]}...")
    return 0


@command.command("remove")
@click.argument("name")
@_FILE
def remove(name: str, path: Path) -> int:
    """Take the key NAME out: it is refused from the next request on."""
    from tenon.server.keys import remove_key

    remove_key(path, name)
    return 0
