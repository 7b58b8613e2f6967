"""`tenon explain`."""

from __future__ import annotations

import sys
from typing import Any

import rich_click as click

from tenon.cli.options import engine_options
from tenon.config import EngineArgs


@click.command("explain")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--no-load", is_flag=True, help="Only the ops; do not load the model.")
@engine_options()
def command(engine: EngineArgs, as_json: bool, no_load: bool) -> None:
    """Show which backend runs each op on this machine for a model, and why the others do not."""
    from tenon import collect_env
    from tenon.ops import select

    facts: dict[str, Any] = {
        "model": engine.model,
        "kernels": collect_env.kernels(),
        "instruction_sets": _instruction_sets(),
        "engine": {},
    }
    if not no_load:
        facts["engine"] = _load(engine)
    facts["ops"] = [
        {"op": choice.op, "backend": choice.backend, "others": choice.reasons} for choice in select.explain()
    ]
    if as_json:
        import json

        click.echo(json.dumps(facts, indent=2))
    else:
        _show(facts)


def _instruction_sets() -> dict[str, str]:
    """For the native backend, "used" or why not; empty where it does not run at all."""
    from tenon.kernels import cpu

    if cpu.support():
        return {}
    return {name: reason or "used" for name, reason in cpu.choices().items()}


def _load(args: EngineArgs) -> dict[str, str | int | float]:
    """What the engine says about itself, once it has loaded the model and captured its plans."""
    from tenon.cli.models import ensure_here
    from tenon.engine.client import InProcessClient
    from tenon.util.terminal import loading

    config = args.resolve()
    if config.load_format != "oracle":
        ensure_here(config.model, config.revision)
    with loading(config.served_model_name[0]) as on_loading:
        ready = InProcessClient(config, on_loading).load()
    return {
        **ready.info,
        "max_model_len": ready.max_model_len,
        "kv_blocks": ready.num_kv_blocks,
        "block_size": ready.block_size,
        "load_seconds": round(ready.load_seconds, 3),
    }


def _show(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout, highlight=False)
    for name, value in ({"kernels": facts["kernels"]} | facts["engine"]).items():
        console.print(f"{name}: {value}", markup=False)
    if facts["instruction_sets"]:
        table = Table("instruction set", "used, or why not")
        for name, reason in facts["instruction_sets"].items():
            table.add_row(name, reason)
        console.print(table)
    table = Table("op", "backend", "why not another")
    for row in facts["ops"]:
        style = "yellow" if row["backend"] == "reference" else ""
        others = "\n".join(f"{name}: {reason}" for name, reason in row["others"].items())
        table.add_row(row["op"], row["backend"], others, style=style)
    console.print(table)
