"""Activation dtypes, and views between numpy and torch that copy nothing.

The CPU path's tensors are numpy arrays, bfloat16 being the dtype of `ml_dtypes`; torch only serves the
references, so it is imported when one runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    import torch

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT32 = np.dtype(np.float32)
_ACT = {"bfloat16": BFLOAT16, "float32": FLOAT32}


def act_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of `ModelSpec.dtype`: "bfloat16" or "float32"."""
    return _ACT[name]


def to_torch(array: np.ndarray) -> torch.Tensor:
    """A tensor on the same memory; bfloat16 stays bfloat16."""
    import torch

    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_float(array: np.ndarray) -> torch.Tensor:
    """A float32 tensor of the values."""
    return to_torch(array).float()


def to_numpy(tensor: torch.Tensor, dtype: np.dtype[Any] | None = None) -> np.ndarray:
    """An array of `tensor`, rounded to `dtype` (bfloat16 or float32) when given."""
    import torch

    if dtype is not None:
        tensor = tensor.to(torch.bfloat16 if np.dtype(dtype) == BFLOAT16 else torch.float32)
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(BFLOAT16)
    return tensor.numpy()
