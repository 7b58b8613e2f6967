"""Memory that the native module cannot get is Python's MemoryError, which the engine acts on."""

import pytest

from tenon.kernels.cpu import _native


def test_an_arena():
    arena = _native.Arena()
    with pytest.raises(MemoryError):
        arena.bytes(1 << 60)
    assert arena.bytes(1 << 10).nbytes == 1 << 10


def test_a_vector_within_a_parallel_region():
    with pytest.raises(MemoryError):
        _native.exercise_pool(1, 1 << 60)
    assert _native.exercise_pool(1, 4) == [1] * 4
