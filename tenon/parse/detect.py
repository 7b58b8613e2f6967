"""The output format of a model, from its chat template: what it was trained to write stands there."""

from __future__ import annotations

from tenon.parse import formats

AUTO = "auto"


def detect(chat_template: str | None) -> str:
    """Name of the format whose table fits a chat template best; `plain` if none does or there is none."""
    if not chat_template:
        return "plain"
    fitting = [
        (template.rank, sum(map(len, template.has)), name)
        for name in formats.names()
        for template in formats.load(name).templates
        if template.fits(chat_template)
    ]
    return max(fitting)[2] if fitting else "plain"


def resolve(name: str, chat_template: str | None) -> str:
    """The format for `--output-format`: a name, or `auto`. Raises ConfigError for any other name."""
    if name == AUTO:
        return detect(chat_template)
    formats.load(name)
    return name
