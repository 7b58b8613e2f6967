"""Recording and replaying native ops."""

from __future__ import annotations

from tenon.kernels.cpu import _native
from tenon.ops.plan import NativePlan


def native_plan() -> NativePlan:
    return _native.Plan()


def count_ops(address: int) -> None:
    _native.count_ops(address)
