"""Typed access to a model's configuration, whose values come from outside and may be anything."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from tenon.errors import ModelFileError

MAX_WHOLE = 2**31 - 1
MAX_NUMBER = 1e15
MAX_POSITIONS = 1 << 24
MAX_WIDTH = 1 << 20
# The greatest whole numbers by name of field, in config.json or GGUF; the first that fits counts. No model
# comes near to them, and a loader would allocate for what is above.
_GREATEST = [
    (re.compile(pattern), most)
    for pattern, most in (
        (r"layers?$|^block_count$|_n_layers$", 4096),
        (r"attention_heads$|key_value_heads$|head_count", 1 << 14),
        (r"^head_dim$|key_length$|value_length$|rope.dimension_count$|_head_dim$|_rank$", 1 << 14),
        (r"vocab_size$", 1 << 24),
        (r"position_embeddings$|context_length$", MAX_POSITIONS),
        (r"hidden_size$|intermediate_size$|embedding_length$|feed_forward_length$", MAX_WIDTH),
        (r"num_labels$|experts|expert_count|_per_tok$|expert_used", 1 << 16),
    )
]


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
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value:
            raise self.error(name, f"must be a whole number of at least {low}, not {_short(value)}")
        most = next((most for pattern, most in _GREATEST if pattern.search(name)), MAX_WHOLE)
        if value > most:
            raise self.error(name, f"must be at most {most}, not {_short(value)}")
        return value

    def number(self, name: str, default: float | None = None, above: float = 0.0) -> float:
        """A finite number above `above`; required without a default."""
        value = self._required(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(name, f"must be a number, not {_short(value)}")
        if not above < value <= MAX_NUMBER:  # false for what is not finite
            what = f"must be a finite number above {above:g} and at most {MAX_NUMBER:g}"
            raise self.error(name, f"{what}, not {_short(value)}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise self.error(name, f"must be true or false, not {_short(value)}")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        value = self._required(name, default)
        if not isinstance(value, str):
            raise self.error(name, f"must be a string, not {_short(value)}")
        return value

    def within(self, name: str) -> Fields:
        """The object inside this one, empty when it is absent."""
        value = self.get(name, {})
        if not isinstance(value, Mapping):
            raise self.error(name, f"must be an object, not {_short(value)}")
        return Fields(value, self.path)

    def saying(self, values: Mapping[str, Any]) -> Fields:
        """The same, but for members that have these values. Nothing is read of a file's metadata."""
        over = {self.prefix + name: value for name, value in values.items()}
        return Fields(ChainMap(over, cast("dict[str, Any]", self.values)), self.path, self.prefix)

    def error(self, name: str, what: str) -> ModelFileError:
        return ModelFileError(f"{self.path}: {self.prefix + name} {what}")

    def _required(self, name: str, default: Any) -> Any:
        value = self.get(name, default)
        if value is None:
            raise self.error(name, "is missing")
        return value


def _short(value: Any) -> str:
    """For messages: what a file holds may be of any length."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**40 else "one of more than 40 digits"
    return text if len(text) <= 200 else f"{text[:200]}..."
