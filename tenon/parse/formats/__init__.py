"""One output format per file: `FORMAT`, its table, and `CASES`, what it must do. The filename is its name."""

from __future__ import annotations

from tenon.errors import ConfigError
from tenon.parse.format import Case, Format
from tenon.util import plugin


def names() -> list[str]:
    """Every output format there is, sorted."""
    return plugin.names(__name__)


def load(name: str) -> Format:
    """The table of a format. Raises ConfigError, listing what there is."""
    try:
        return plugin.load(__name__, name).FORMAT
    except KeyError:
        raise ConfigError(
            f"output_format {name!r} does not exist; use auto, or one of {', '.join(names())}"
        ) from None


def cases(name: str) -> list[Case]:
    """What the format's own file says it must do."""
    return plugin.load(__name__, name).CASES
