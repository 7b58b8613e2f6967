"""The only registration mechanism: the file `tenon/<package>/<name>.py` is the plugin `<name>`."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def names(package: str) -> list[str]:
    """Names of the plugins of a package, sorted; nothing is imported but the package itself."""
    paths = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(paths) if not m.name.startswith("_"))


def load(package: str, name: str) -> ModuleType:
    """Import the plugin `name` of `package`. Raises KeyError, listing what there is, if it has none."""
    if name not in names(package):
        raise KeyError(f"{package} has no {name!r}; it has {', '.join(names(package))}")
    return importlib.import_module(f"{package}.{name}")
