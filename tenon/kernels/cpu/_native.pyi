"""The extension module. Its functions take addresses and sizes; the wrappers beside it say which."""

from typing import Any

def __getattr__(name: str) -> Any: ...
