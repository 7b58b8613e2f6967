"""How tenon starts Python again: without the current directory among the places where modules are looked for.

`python -m` looks there first. Whoever starts a server within a model's directory would run the `json.py` that
came with the model.
"""

from __future__ import annotations

import sys
from pathlib import Path

_HOME = str(Path(__file__).parents[2])  # where the package tenon is; its processes must find the same one
_RUN = (
    "import sys, runpy; sys.path.append(sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module of tenon, as `python -m NAME ARGUMENTS` would."""
    return [sys.executable, "-P", "-c", _RUN, _HOME, name, *arguments]


def forget_directory() -> None:
    """Undo what `python -m tenon` has done, unless tenon itself is in the current directory."""
    if sys.path and sys.path[0] == str(Path.cwd()) != _HOME:
        del sys.path[0]
