"""Where a benchmark's result goes: a table on the terminal, a JSON object, a row of a CSV file."""

from __future__ import annotations

import csv
import datetime
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TextIO

from tenon import collect_env
from tenon.errors import ConfigError

_STAMP = frozenset({"benchmark", "model", "commit", "machine", "date"})  # columns of every row
_SPREAD = ("mean", "median", "p90", "p99")  # of `tenon.bench.stats.summary`

# Columns of tables: their heading on a terminal, and the factor to its unit.
_UNITS = {
    "seconds": ("us", 1e6),
    "ms": ("ms", 1.0),
    "share": ("%", 100.0),
    "gigabytes_per_s": ("GB/s", 1.0),
    "bandwidth_fraction": ("% of roof", 100.0),
    "gigaflops_per_s": ("GFLOP/s", 1.0),
    "peak_fraction": ("% of peak", 100.0),
}


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


def columns(path: str) -> list[str]:
    """Columns of a table that `append_csv` wrote; none for a file that is not there or empty.

    Raises ConfigError for a file that something else has written.
    """
    try:
        with open(path, newline="") as file:
            header = next(csv.reader(file), [])
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError):
        header = ["?"]
    if header and not _STAMP.issubset(header):
        raise ConfigError(f"{path} is not a table of tenon bench: it is left as it is; name another file")
    return header


def append_csv(result: dict[str, Any], path: str) -> None:
    """Append a row, or one for each entry of the result's lists.

    A file with other columns keeps them first; new columns are added to its header. Raises ConfigError.
    """
    rows = [flat(result) | flat(entry) for entry in _entries(result)] or [flat(result)]
    known = columns(path)
    added = [name for name in rows[0] if name not in known]
    try:
        if known and not added:
            with open(path, "a", newline="") as out:
                csv.DictWriter(out, known).writerows(rows)
            return
        with open(path, newline="") if known else io.StringIO() as file:
            old = list(csv.DictReader(file))
        with open(path, "w", newline="") as out:
            writer = csv.DictWriter(out, known + added)
            writer.writeheader()
            writer.writerows([*old, *rows])
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


def _entries(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for value in result.values() if isinstance(value, list) for entry in value]


def show(result: dict[str, Any], out: TextIO) -> None:
    """The figures as lines, and a list of rows as a table."""
    from rich import box
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
    for name, rows in _tables(result):
        units = [_UNITS.get(column, (column, 1.0)) for column in rows[0]]
        table = Table(title=name, box=box.SIMPLE, pad_edge=False)
        for column, (heading, _) in zip(rows[0], units, strict=True):
            numbers = column in _UNITS
            justify: Literal["left", "right"] = "right" if numbers else "left"
            table.add_column(heading, justify=justify, overflow="fold", no_wrap=column != "case")
        for row in rows:
            table.add_row(*map(_cell, row.values(), (scale for _, scale in units)))
        console.print(table)


def _tables(result: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The lists of rows in a result, nested ones as `outer.inner`."""
    for name, value in result.items():
        if isinstance(value, dict):
            yield from _tables(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value:
            yield prefix + name, value


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
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _cell(value: Any, scale: float) -> str:
    """A value of a table in its column's unit, with three digits."""
    if isinstance(value, float):
        value *= scale
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "" if value is None else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
