"""JSON schemas on their way into a grammar."""

from __future__ import annotations

from typing import Any

# Of a value's white space, so that an output cannot be filled up with it.
SPACES = r"[\x20\x0A\x0D\x09]{1,64}"


def without_options(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without llguidance's own options, one of which is not to enforce what it does not know."""
    return {name: value for name, value in schema.items() if name != "x-guidance"}


def closed(schema: Any) -> Any:
    """The schema, with objects that list their properties allowing no others unless they say so.

    Only where that cannot rule out everything: not beside or inside of what is combined with the object.
    """
    if not isinstance(schema, dict):
        return schema
    combined = not schema.keys().isdisjoint(("allOf", "anyOf", "oneOf", "not", "if", "$ref", "$dynamicRef"))
    out = dict(schema)
    for name in ("properties", "$defs", "definitions"):
        if isinstance(schema.get(name), dict) and not (combined and name == "properties"):
            out[name] = {key: closed(value) for key, value in schema[name].items()}
    if isinstance(schema.get("items"), dict):
        out["items"] = closed(schema["items"])
    if "properties" in schema and not combined and "patternProperties" not in schema:
        out.setdefault("additionalProperties", False)
    elif isinstance(schema.get("anyOf"), list) and "properties" not in schema:
        out["anyOf"] = [closed(part) for part in schema["anyOf"]]
    return out
