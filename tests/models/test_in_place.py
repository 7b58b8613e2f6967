"""Models whose weights stay where their files have them are those that were packed, bit for bit."""

import numpy as np
import pytest
import torch

from tenon.models import load_model, pack_model
from tenon.resolve import resolve
from tests.models.families import make, save_gguf, save_safetensors, tiny
from tests.models.test_pack import logits

# Tied head, own head, biases; experts in tensors of their own, and stacked; latent attention; states.
FAMILIES = ["qwen3", "llama", "qwen2", "qwen3_moe", "deepseek_v3", "qwen3_next", "llama4"]


def save(family, directory, seed, **options):
    """A tiny model in bf16."""
    return save_safetensors(make(tiny(family), seed).to(torch.bfloat16), directory, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_models_in_place_give_the_bits_of_packed_ones(family, tmp_path, seed):
    files = save(family, tmp_path, seed)
    mapped, packed = load_model(files), load_model(files, in_place=False)
    assert 0 < mapped.spec.mapped_bytes < sum(path.stat().st_size for path in files.paths)
    assert packed.spec.mapped_bytes == 0
    np.testing.assert_array_equal(logits(mapped, seed), logits(packed, seed))


def test_files_in_parts(tmp_path, seed):
    files = save("qwen3", tmp_path, seed, max_shard_size="40KB")
    assert len(files.paths) > 1
    mapped = load_model(files)
    assert mapped.spec.mapped_bytes > 0
    np.testing.assert_array_equal(logits(mapped, seed), logits(load_model(files, in_place=False), seed))


def test_other_types_are_packed(tmp_path, seed):
    model = make(tiny("llama"), seed)
    for files, options in (
        (save_safetensors(model, tmp_path / "f32"), {}),
        (save_gguf(model, tmp_path / "m.gguf"), {}),
        (save("llama", tmp_path / "bf16", seed), {"dtype": "float32"}),
        (save("llama", tmp_path / "quantised", seed), {"quantization": "int8"}),
    ):
        assert load_model(files, **options).spec.mapped_bytes == 0


def test_packed_models_are_mapped_and_hold_nothing_of_their_source(tmp_path, seed):
    files = save("llama", tmp_path / "source", seed)
    expected = logits(load_model(files), seed)
    packed = resolve(str(pack_model(files, tmp_path / "packed")))
    for path in files.paths:
        path.unlink()
    again = load_model(packed)
    assert 0 < again.spec.mapped_bytes < sum(path.stat().st_size for path in packed.paths)
    np.testing.assert_array_equal(logits(again, seed), expected)
