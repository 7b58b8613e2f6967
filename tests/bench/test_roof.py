import math

import numpy as np
import pytest

from tenon.bench.roof import Roofs, Weights, probe
from tenon.core.spec import KVGroup, ModelSpec
from tenon.layers.embedding import Embedding
from tenon.layers.kv import bytes_per_block
from tenon.ops import select


class Packed:
    formats = ("bf16",)

    def __init__(self, *shape):
        self.shape = shape
        self.nbytes = 2 * shape[0] * shape[1]
        self.act_bits = 16 if shape[0] == 30 else 0


class Layer:
    def __init__(self):
        self.up = Packed(30, 10)
        self.scale = np.ones(3)


class Model:
    """A table of 100 x 10 and two layers; perhaps a head of its own."""

    def __init__(self, tied):
        self.spec = ModelSpec("x", 100, 64, (KVGroup("full", 2, 1, 64),), (0,), "bfloat16")
        self.embed = Embedding.__new__(Embedding)
        self.embed.table_VD = Packed(100, 10)
        self.blocks = [Layer(), Layer()]
        self.head = None if tied else Packed(100, 10)
        self.again = self.blocks[0]  # counted once

    def kv_bytes_per_block(self, block_size):
        return bytes_per_block(self.spec, block_size)


@pytest.mark.parametrize("tied", [True, False])
def test_a_step_reads_layers_and_one_table(tied, monkeypatch):
    for kind in (Packed, Layer, Model):
        monkeypatch.setattr(kind, "__module__", "tenon.models.x")
    weights = Weights.of(Model(tied), block_size=32)
    assert weights.matrix_parameters == 2 * 300
    assert weights.byte_products == 2 * 2 * 300
    assert weights.float_parameters == 0
    assert weights.read_per_step == 2 * (1000 + 2 * 300)
    assert weights.kv_bytes_per_token >= 2 * 2 * 64 * 2


def test_a_step_reads_a_share_of_the_experts(monkeypatch):
    """And multiplies with it."""
    for kind in (Packed, Layer, Model):
        monkeypatch.setattr(kind, "__module__", "tenon.models.x")
    model = Model(tied=True)
    model.blocks[1].active_share = 0.25
    weights = Weights.of(model, block_size=32)
    assert weights.read_per_step == 2 * (1000 + 300 + 75)
    assert weights.matrix_parameters == 300 + 75
    assert weights.byte_products == 2 * (300 + 75)


def test_the_better_of_two_probes_counts():
    assert Roofs(1.0, 4.0, 3.0, 7.0).best(Roofs(2.0, 2.0, 5.0, 6.0)) == Roofs(2.0, 4.0, 5.0, 7.0)


def test_products_have_the_peak_of_their_unit():
    roofs = Roofs(1.0, 1.0, 10.0, 40.0)
    ops = ("linear", "linear int8", "linear int8 (head)", "linear int16")
    assert [roofs.peak_of(op) for op in ops] == [10.0, 40.0, 40.0, 20.0]
    assert Weights(0, 100, 80, 20, 1.0, 10).prefill_seconds(5, roofs) == 2 * 5 * (20 / 10 + 80 / 40)
    unprobed = Roofs(1.0, 1.0, 10.0, math.nan)
    assert Weights(0, 100, 0, 100, 1.0, 10).prefill_seconds(5, unprobed) == 2 * 5 * 100 / 10


def test_the_reference_has_no_roofs():
    with select.forced("reference"):
        assert all(math.isnan(value) for value in probe(1 << 20).figures().values())


def test_this_machine_has():
    if select.choose(select.OPS["linear"]).backend == select.REFERENCE:
        pytest.skip("the native kernels do not run linear layers here")
    roofs = probe(1 << 20)
    assert 1e8 < roofs.bandwidth < 1e13
    assert 1e8 < roofs.dram < 1e13
    assert 1e9 < roofs.peak < 1e15
    assert math.isnan(roofs.int8) or 1e9 < roofs.int8 < 1e15


def test_bytes_have_a_peak_where_an_instruction_multiplies_them():
    from tenon.kernels import cpu

    if cpu.support() or "avx512-vnni" not in cpu.variants():
        pytest.skip("no VNNI here")
    for name in cpu.variants():
        with cpu.variant(name):
            peaks = cpu.matrix_peaks()
        assert ("int8" in peaks) == (name in ("avx512-vnni", "amx"))
