"""Layouts of files to be written, read back by tenon and by the formats' own libraries."""

import gguf
import numpy as np
import pytest
import safetensors

from tenon.core import ggml
from tenon.formats.gguf import open_gguf
from tenon.formats.safetensors import open_safetensors
from tenon.formats.writing import NewTensor, gguf_layout, safetensors_layout

METADATA = {
    "general.architecture": "llama",
    "llama.block_count": 7,
    "llama.rope.freq_base": 0.5,
    "tokenizer.ggml.add_bos_token": True,
}


def write(path, layout, tensors, rng):
    """The bytes given to each tensor."""
    data = {tensor.name: rng.bytes(tensor.num_bytes) for tensor in tensors}
    content = bytearray(layout.size)
    content[: len(layout.header)] = layout.header
    for name, one in data.items():
        content[layout.offsets[name] : layout.offsets[name] + len(one)] = one
    path.write_bytes(content)
    return data


def test_gguf(tmp_path, seed):
    rng = np.random.default_rng(seed)
    types = set(ggml.BLOCKS) - {"f8_e4m3"}
    tensors = [NewTensor(f"t.{dtype}", dtype, (int(rng.integers(1, 9)), 256)) for dtype in sorted(types)]
    tensors.append(NewTensor("vector", "f32", (3,)))
    path = tmp_path / "m.gguf"
    data = write(path, gguf_layout(METADATA, tensors), tensors, rng)
    ours = open_gguf((path,))
    assert {key: ours.metadata[key] for key in ours.metadata} == METADATA
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for tensor in tensors:
        info = ours.tensors[tensor.name]
        assert (info.dtype, info.shape) == (tensor.dtype, tensor.shape)
        assert info.raw().data.tobytes() == data[tensor.name] == theirs[tensor.name].data.tobytes()
        assert theirs[tensor.name].tensor_type.name.lower() == tensor.dtype


def test_encoded_metadata_is_copied(tmp_path, smollm2_gguf):
    source = open_gguf((smollm2_gguf,)).metadata
    layout = gguf_layout({key: source.encoded(key) for key in source}, [])
    path = tmp_path / "m.gguf"
    path.write_bytes(layout.header)
    copy = open_gguf((path,)).metadata
    assert list(copy) == list(source)
    assert all(copy[key] == source[key] for key in source)


def test_safetensors(tmp_path, seed):
    rng = np.random.default_rng(seed)
    tensors = [NewTensor("a", "f32", (3, 5)), NewTensor("b", "f16", (7,)), NewTensor("c", "bf16", (2, 3, 4))]
    tensors.append(NewTensor("d", "f8_e4m3", (5, 3)))
    path = tmp_path / "model.safetensors"
    data = write(path, safetensors_layout(tensors), tensors, rng)
    ours = open_safetensors(tmp_path, (path,)).tensors
    with safetensors.safe_open(path, "pt") as theirs:
        assert theirs.metadata() == {"format": "pt"}
        assert sorted(theirs.keys()) == ["a", "b", "c", "d"]
        assert theirs.get_slice("c").get_shape() == [2, 3, 4]
        assert theirs.get_tensor("a").numpy().tobytes() == data["a"]
    assert {name: (info.dtype, info.shape) for name, info in ours.items()} == {
        tensor.name: (tensor.dtype, tensor.shape) for tensor in tensors
    }
    assert all(ours[name].raw().data.tobytes() == one for name, one in data.items())


def test_safetensors_have_no_quantized_types():
    with pytest.raises(ValueError, match="q4_1"):
        safetensors_layout([NewTensor("a", "q4_1", (1, 32))])
