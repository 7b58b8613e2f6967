import pytest

from tenon import ops
from tenon.errors import ConfigError
from tenon.llm import LLM
from tenon.ops import select

native = pytest.importorskip("tenon.kernels.cpu._native")


@pytest.fixture(autouse=True)
def restore():
    before = native.num_threads()
    yield
    native.set_num_threads(before)


def test_the_pool_is_resized():
    for count in {1, native.max_threads()}:
        ops.set_num_threads(count)
        assert native.num_threads() == count


def test_more_threads_than_cores():
    with pytest.raises(ConfigError, match=r"num_threads: .*between 1 and"):
        ops.set_num_threads(native.max_threads() + 1)


def test_the_reference_has_none():
    before = native.num_threads()
    with select.forced("reference"):
        ops.set_num_threads(1)
    assert native.num_threads() == before


def test_an_engine_gets_the_threads_that_it_asks_for_even_when_it_is_not_the_first():
    native.set_num_threads(native.max_threads())
    LLM(load_format="oracle", num_threads=1)
    assert native.num_threads() == 1
