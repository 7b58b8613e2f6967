import numpy as np
import pytest

from tenon.bench import random_weights
from tenon.bench.random_weights import chunk_bytes, num_chunks
from tenon.core import ggml
from tenon.formats.writing import NewTensor


def values(tensor, seed):
    data = np.concatenate([chunk_bytes(tensor, chunk, seed) for chunk in range(num_chunks(tensor))])
    assert data.nbytes == tensor.num_bytes
    return ggml.dequantize(tensor.dtype, data, tensor.shape)


@pytest.mark.parametrize("dtype", ggml.BLOCKS)
def test_matrices_keep_the_size_of_what_they_are_multiplied_with(dtype, seed):
    matrix = values(NewTensor("blk.0.ffn_up.weight", dtype, (300, 512)), seed)
    if dtype == "f8_e4m3":
        matrix = matrix * values(NewTensor("blk.0.ffn_up.weight_scale_inv", "f32", (3, 4)), seed).mean()
    deviation = 512**-0.5
    assert np.isfinite(matrix).all()
    assert abs(matrix.mean()) < deviation / 6  # q4_0 and q5_0 have one more code below zero than above
    assert 0.9 < matrix.std() / deviation < 1.15
    assert len(np.unique(matrix)) > {"mxfp4": 14, "f8_e4m3": 100}.get(
        dtype, 1000
    )  # sixteen codes, two of them 0


def test_norms_and_biases(seed):
    norm = values(NewTensor("model.layers.0.input_layernorm.weight", "f32", (4000,)), seed)
    assert abs(norm.mean() - 1) < 0.01
    bias = values(NewTensor("model.layers.0.self_attn.q_proj.bias", "bf16", (4000,)), seed)
    assert abs(bias.mean()) < 0.02
    assert 0.05 < bias.std() < 0.2


def test_chunks_are_set_by_seed_name_and_number(monkeypatch, seed):
    monkeypatch.setattr(random_weights, "CHUNK", 1 << 10)
    tensor = NewTensor("a.weight", "q4_k", (7, 256))
    assert num_chunks(tensor) == 2
    first = chunk_bytes(tensor, 0, seed)
    assert (first == chunk_bytes(tensor, 0, seed)).all()
    for other in (chunk_bytes(tensor, 1, seed), chunk_bytes(tensor._replace(name="b.weight"), 0, seed)):
        assert (first[: len(other)] != other).mean() > 0.5
    assert (first != chunk_bytes(tensor, 0, seed + 1)).mean() > 0.5
