"""Sizes beyond 2^31: kernels count in 64 bits, and a number that does not fit is refused, never cut short."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

from tenon.kernels import cpu

if reason := cpu.support():
    pytest.skip(reason, allow_module_level=True)

from tenon.kernels.cpu import _native
from tenon.kernels.cpu.embedding import embedding
from tenon.kernels.cpu.linear import adopt_linear
from tenon.kernels.cpu.memory import address
from tenon.kernels.cpu.rows import add_rows, gather_rows
from tenon.ops.arrays import BFLOAT16, FLOAT32

COLUMNS = 4096
ROWS = (1 << 19) + 64  # times COLUMNS: just above 2^31 elements


def unwritten(num_bytes: int) -> np.ndarray:
    """uint8, zeros that take no memory until they are written."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    try:
        return np.frombuffer(mmap.mmap(-1, num_bytes, flags=flags), np.uint8)
    except OSError as error:
        pytest.skip(f"no address space for it: {error}")


@pytest.fixture(params=_native.available_isas())
def isa(request):
    with cpu.variant(request.param):
        yield request.param


def test_rows_of_a_table(isa):
    table = unwritten(4 * ROWS * COLUMNS).view(np.float32).reshape(ROWS, COLUMNS)
    rows = np.array([0, ROWS - 1, (1 << 19) - 1], np.int32)
    table[ROWS - 1] = np.arange(COLUMNS)
    got = gather_rows(table, rows)
    assert np.array_equal(got[1], np.arange(COLUMNS, dtype=np.float32))
    assert not got[[0, 2]].any()
    added = add_rows(np.ones((3, COLUMNS), np.float32), table, rows)
    assert np.array_equal(added, got + 1)


@pytest.mark.parametrize("act", [BFLOAT16, FLOAT32])
def test_rows_of_packed_weights(isa, act):
    """An embedding of more than 2^31 weights: its last row, and the one before the border."""
    kind, itemsize = ("bf16", 2) if act == BFLOAT16 else ("f32", 4)
    rows = -(-ROWS // 16) * 16
    data = unwritten(rows * COLUMNS * itemsize)
    table = adopt_linear(COLUMNS, [(kind, rows)], data, act)
    assert table.shape == (rows, COLUMNS)
    assert table.nbytes == data.nbytes > 2**32
    data[-16 * COLUMNS * itemsize :].view(act)[:] = 1.5  # the last panel: 16 rows
    got = embedding(np.array([rows - 1, rows - 17, 0], np.int32), table)
    assert (got[0] == 1.5).all()
    assert not got[1:].any()


@pytest.mark.parametrize("number", [2**31, 2**32 + 8, 2**63, -(2**40)])
def test_numbers_that_do_not_fit_are_refused(number):
    """Widths are 32 bits in the kernels; the border between Python and C++ checks them."""
    x = np.zeros(8, np.float32)
    for call in (
        lambda: _native.rms_norm(address(x), address(x), address(x), 1, number, 1e-5, False),
        lambda: _native.gather_rows(address(x), address(x), address(x), 1, number),
        lambda: _native.add_rows(address(x), address(x), address(x), 1, number),
        lambda: _native.silu_mul(address(x), address(x), 1, number, False),
    ):
        with pytest.raises(TypeError):
            call()
