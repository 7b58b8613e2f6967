"""Where ops put their outputs."""

from __future__ import annotations

from typing import Any

import numpy as np


def empty(shape: tuple[int, ...], dtype: np.dtype[Any] | type) -> np.ndarray:
    """An uninitialised array for an op's output."""
    return np.empty(shape, dtype)
