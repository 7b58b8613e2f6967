"""Write docs/reference/limits.md from `tenon.server.limits.Limits`. A test checks that it is current."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tenon.server.limits import Limits

PATH = Path(__file__).parents[1] / "docs" / "reference" / "limits.md"
HEAD = """# Limits

Made from the code by `make docs`. `tenon serve --limit NAME=VALUE` sets any of them, and may be given again.
What is beyond one gets the status in the last column; one with status 200 is not an error of the request.

| limit | default | minimum | maximum | of | answer |
|---|---|---|---|---|---|
"""


def reference() -> str:
    return HEAD + "".join(row(field) for field in dataclasses.fields(Limits))


def row(field: dataclasses.Field[Any]) -> str:
    unit, ceiling = field.metadata["unit"], field.metadata["ceiling"]
    cells = (
        f"`{field.name}`",
        shown(field.default, unit),
        f"{field.metadata['least']:g}",
        "" if ceiling is None else shown(int(ceiling), unit).removesuffix(f" {unit}"),
        field.metadata["meaning"],
        str(field.metadata["status"]),
    )
    return f"| {' | '.join(cells)} |\n"


def shown(value: Any, unit: str) -> str:
    """A number with its unit; bytes as they are typed."""
    if unit != "bytes":
        return f"{value:g} {unit}" if isinstance(value, float) else f"{value} {unit}"
    for name, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value % size == 0:
            return f"{value // size}{name}"
    return f"{value} bytes"


if __name__ == "__main__":
    PATH.write_text(reference())
