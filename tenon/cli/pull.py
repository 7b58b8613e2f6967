"""`tenon pull`."""

from __future__ import annotations

import rich_click as click

from tenon.config import DEFAULT_MODEL


@click.command("pull")
@click.argument(
    "model", required=False, default=DEFAULT_MODEL, help="Short name or Hugging Face repository id."
)
@click.option("--revision", metavar="TEXT", help="Branch, tag or commit of a Hugging Face repository.")
def command(model: str, revision: str | None) -> None:
    """Get a model's files onto this machine, checked, so that it can be served offline."""
    from tenon.cli.models import ensure_here

    files = ensure_here(model, revision)
    click.echo(f"{files.name} is at {files.path}")
