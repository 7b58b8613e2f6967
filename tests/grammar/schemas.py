"""Random JSON schemas of what llguidance enforces."""

from __future__ import annotations

import random
from typing import Any


def random_schema(rng: random.Random, depth: int = 3) -> dict[str, Any]:
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const"]
    kind = rng.choice(kinds + ["object", "array", "anyOf"] * 2 * bool(depth))
    match kind:
        case "string":
            return {"type": "string"} | rng.choice(
                [{}, {"minLength": 2, "maxLength": 5}, {"pattern": "^[a-f]{1,3}$"}, {"format": "date"}]
            )
        case "integer" | "number":
            return {"type": kind} | rng.choice([{}, {"minimum": -3, "maximum": 40}, {"exclusiveMinimum": 0}])
        case "enum":
            return {"enum": rng.sample(["a", "bé", 1, 2.5, None, True, {"x": [1]}], 3)}
        case "const":
            return {"const": rng.choice(["k", 7, [1, "z"]])}
        case "object":
            return random_object(rng, depth - 1)
        case "array":
            low = rng.randint(0, 2)
            return {
                "type": "array",
                "items": random_schema(rng, depth - 1),
                "minItems": low,
                "maxItems": low + 2,
            }
        case "anyOf":
            return {"anyOf": [random_schema(rng, depth - 1) for _ in range(2)]}
    return {"type": kind}


def random_object(rng: random.Random, depth: int = 2) -> dict[str, Any]:
    names = rng.sample(["a", "name", "x y", "naïve", 'q"uote', "n1"], rng.randint(0, 4))
    return {
        "type": "object",
        "properties": {name: random_schema(rng, depth) for name in names},
        "required": [name for name in names if rng.random() < 0.6],
        "additionalProperties": False,
    }
