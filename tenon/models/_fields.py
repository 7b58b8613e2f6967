"""Typed access to a model's configuration, whose values come from outside and may be anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tenon.errors import ModelFileError

MAX_WHOLE = 2**31 - 1


class Fields:
    """The members of a JSON object, or the metadata of a GGUF file below `prefix`.

    A value of null counts as absent. Wrong types and values raise ModelFileError, naming file and field.
    """

    def __init__(self, values: Mapping[str, Any], path: Path, prefix: str = "") -> None:
        self.values = values
        self.path = path
        self.prefix = prefix

    def get(self, name: str, default: Any = None) -> Any:
        value = self.values.get(self.prefix + name)
        return default if value is None else value

    def whole(self, name: str, default: int | None = None, low: int = 1) -> int:
        """A whole number of at least `low`; required without a default."""
        value = self._required(name, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= MAX_WHOLE:
            raise self.error(name, f"must be a whole number of at least {low}, not {value!r}")
        return value

    def number(self, name: str, default: float | None = None, above: float = 0.0) -> float:
        """A finite number above `above`; required without a default."""
        value = self._required(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(name, f"must be a number, not {value!r}")
        if not math.isfinite(value) or value <= above:
            raise self.error(name, f"must be a finite number above {above:g}, not {value!r}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise self.error(name, f"must be true or false, not {value!r}")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        value = self._required(name, default)
        if not isinstance(value, str):
            raise self.error(name, f"must be a string, not {value!r}")
        return value

    def within(self, name: str) -> Fields:
        """The object inside this one, empty when it is absent."""
        value = self.get(name, {})
        if not isinstance(value, Mapping):
            raise self.error(name, f"must be an object, not {value!r}")
        return Fields(value, self.path)

    def error(self, name: str, what: str) -> ModelFileError:
        return ModelFileError(f"{self.path}: {self.prefix + name} {what}")

    def _required(self, name: str, default: Any) -> Any:
        value = self.get(name, default)
        if value is None:
            raise self.error(name, "is missing")
        return value
