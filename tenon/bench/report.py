"""Where a benchmark's result goes: a table on the terminal, a JSON object, a row of a CSV file."""

from __future__ import annotations

import csv
import datetime
import json
import math
from pathlib import Path
from typing import Any, TextIO

from tenon import collect_env
from tenon.errors import ConfigError

_SPREAD = ("mean", "median", "p90", "p99")  # of `tenon.bench.stats.summary`


def stamp(kind: str, model: str, configuration: dict[str, Any]) -> dict[str, Any]:
    """What identifies a run: kind, model, configuration, commit, machine, date (UTC)."""
    return {
        "benchmark": kind,
        "model": model,
        "configuration": configuration,
        "commit": collect_env.commit(),
        "machine": collect_env.machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def to_json(result: dict[str, Any]) -> str:
    """One JSON object; what is not a finite number becomes null, which every JSON reader takes."""
    return json.dumps(_finite(result), indent=2)


def write_json(result: dict[str, Any], path: str) -> None:
    """Write to a file, or to standard output for "-"."""
    text = to_json(result)
    if path == "-":
        print(text)
        return
    try:
        Path(path).write_text(text + "\n")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


def append_csv(result: dict[str, Any], path: str) -> None:
    """Append a row. A file with other columns keeps them first; new columns are added to its header."""
    row = flat(result)
    file = Path(path)
    try:
        old = list(csv.DictReader(file.open(newline=""))) if file.exists() else []
        columns = list(old[0]) if old else []
        added = [name for name in row if name not in columns]
        if old and not added:
            with file.open("a", newline="") as out:
                csv.DictWriter(out, columns).writerow(row)
            return
        with file.open("w", newline="") as out:
            writer = csv.DictWriter(out, columns + added)
            writer.writeheader()
            writer.writerows([*old, row])
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


def show(result: dict[str, Any], out: TextIO) -> None:
    """The figures as lines, and a list of rows as a table."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=out, highlight=False, markup=False)
    figures = {name: value for name, value in flat(result).items() if value is not None}
    spread = [name for name in figures if f"median_{name}" in figures]
    parts = {f"{part}_{name}" for name in spread for part in _SPREAD}
    lines = {name: value for name, value in figures.items() if name not in spread and name not in parts}
    width = max(map(len, lines), default=0)
    for name, value in lines.items():
        console.print(f"{name:{width}}  {value}")
    if spread:
        table = Table("", *_SPREAD)
        for name in spread:
            table.add_row(name, *(str(figures[f"{part}_{name}"]) for part in _SPREAD))
        console.print(table)
    for name, rows in result.items():
        if isinstance(rows, list) and rows:
            table = Table(*rows[0], title=name)
            for row in rows:
                table.add_row(*(_short(value) for value in row.values()))
            console.print(table)


def flat(result: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as `outer.inner` columns; lists are left out."""
    row: dict[str, Any] = {}
    for name, value in result.items():
        if isinstance(value, dict):
            row.update(flat(value, f"{prefix}{name}."))
        elif not isinstance(value, list):
            row[prefix + name] = _short(value) if isinstance(value, float) else value
    return row


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
