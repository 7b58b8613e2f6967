"""`tenon collect-env`."""

from __future__ import annotations

import rich_click as click


@click.command("collect-env")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> None:
    """Show this machine and installation, for a bug report."""
    from tenon import collect_env

    facts = collect_env.collect()
    if as_json:
        import json

        click.echo(json.dumps(facts, indent=2))
        return
    width = max(len(name) for section in facts.values() for name in section)
    for section, values in facts.items():
        click.echo(section)
        for name, value in values.items():
            click.echo(f"  {name:{width}}  {value}")
