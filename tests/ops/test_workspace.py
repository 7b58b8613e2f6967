import ml_dtypes
import numpy as np
import pytest

from tenon import ops
from tenon.ops import select
from tenon.ops.workspace import Workspace


@pytest.fixture(params=["default", "reference"])
def workspace(request):
    if request.param == "default":
        yield Workspace()
    else:
        with select.forced("reference"):
            yield Workspace()


def test_without_a_workspace_arrays_are_numpys_own():
    array = ops.empty((3, 5), np.float32)
    assert array.shape == (3, 5)
    assert array.base is None


@pytest.mark.parametrize("dtype", [np.float32, np.int32, ml_dtypes.bfloat16])
def test_arrays_are_whole_aligned_and_apart(workspace, dtype, seed):
    rng = np.random.default_rng(seed)
    with workspace:
        arrays = [ops.empty((int(rng.integers(1, 40)), 7), dtype) for _ in range(50)]
    values = [rng.integers(1, 100, array.shape).astype(dtype) for array in arrays]
    for array, value in zip(arrays, values, strict=True):
        assert array.dtype == dtype
        array[:] = value
    for array, value in zip(arrays, values, strict=True):
        np.testing.assert_array_equal(array, value)


def test_empty_shapes(workspace):
    with workspace:
        assert ops.empty((0, 4), np.float32).shape == (0, 4)
        assert ops.empty((4, 0), np.float32).shape == (4, 0)
        assert ops.empty((), np.float32).shape == ()


def test_workspaces_nest_and_end():
    outer, inner = Workspace(), Workspace()
    with outer, inner, outer:
        pass
    assert ops.empty((2,), np.float32).base is None


def test_native_memory_returns_when_the_last_view_dies():
    arena = select.implementation(select.OPS["arena"], select.choose(select.OPS["arena"]).backend)()
    if not hasattr(arena, "bytes_used"):
        pytest.skip("no native arena")
    block = arena.bytes(1000)
    view = block[10:].view(np.uint8)[5:]
    address = block.__array_interface__["data"][0]
    assert address % 64 == 0
    assert arena.bytes_used == 1024
    del block
    assert arena.bytes_used == 1024
    view[:] = 7
    del view
    assert arena.bytes_used == 0
    again = arena.bytes(500)
    assert again.__array_interface__["data"][0] == address


def test_native_arena_survives_any_order_of_deaths(seed):
    arena = select.implementation(select.OPS["arena"], select.choose(select.OPS["arena"]).backend)()
    if not hasattr(arena, "bytes_used"):
        pytest.skip("no native arena")
    rng = np.random.default_rng(seed)
    alive = {}
    for step in range(2000):
        if alive and rng.random() < 0.5:
            key = int(rng.choice(list(alive)))
            assert (alive.pop(key) == key % 251).all()
        else:
            alive[step] = arena.bytes(int(rng.integers(1, 300_000)))
            alive[step][:] = step % 251
    whole = arena.bytes(100 << 20)  # larger than a mapping
    whole[-1] = 1
    alive.clear()
    del whole
    assert arena.bytes_used == 0


def test_reserved_rows_make_room_for_more():
    workspace = Workspace()
    workspace.reserve = {3: 100}
    with workspace:
        small = workspace.empty((3, 4), np.float32)
        other = workspace.empty((3, 4), np.float32)
    grown = np.lib.stride_tricks.as_strided(small, (100, 4), small.strides)
    other[:] = 5
    grown[:] = 1
    assert (other == 5).all()
