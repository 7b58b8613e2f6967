import numpy as np
import pytest

from tenon.kernels.cpu import memory


def test_address_is_where_the_first_element_lies():
    array = np.arange(8, dtype=np.float32)
    assert memory.address(array[2:]) == memory.address(array) + 8


def test_dense_refuses_gaps_and_other_dtypes():
    array = np.zeros((4, 4), np.float32)
    assert memory.dense(array) == memory.address(array)
    with pytest.raises(ValueError, match="C-contiguous"):
        memory.dense(array[:, :2])
    with pytest.raises(ValueError, match="int32"):
        memory.dense(array, np.int32)


def test_row_stride_counts_elements():
    array = np.zeros((4, 6), np.float32)
    assert memory.row_stride(array[:, :2]) == 6
    with pytest.raises(ValueError, match="adjacent"):
        memory.row_stride(array[:, ::2])
