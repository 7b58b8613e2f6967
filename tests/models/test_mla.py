"""What files of models with latent attention say, in either format and its versions."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from tenon.bench.make_model import _shape_only
from tenon.errors import ModelFileError, UnsupportedModel
from tenon.models import deepseek_v2, deepseek_v3, deepseek_v32, load_model, longcat_flash
from tenon.models._checkpoint import Checkpoint
from tenon.models._fields import Fields
from tests.models import families
from tests.models.families import make, save_gguf, save_safetensors, tiny
from tests.models.test_parity import check

# As the published GGUF files of DeepSeek-V3 have it.
PUBLISHED = {
    "block_count": 61,
    "context_length": 163840,
    "embedding_length": 7168,
    "feed_forward_length": 18432,
    "attention.head_count": 128,
    "attention.head_count_kv": 1,
    "attention.layer_norm_rms_epsilon": 1e-6,
    "attention.q_lora_rank": 1536,
    "attention.kv_lora_rank": 512,
    "attention.key_length": 576,
    "attention.value_length": 512,
    "attention.key_length_mla": 192,
    "attention.value_length_mla": 128,
    "rope.freq_base": 10000.0,
    "rope.dimension_count": 64,
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 40.0,
    "rope.scaling.original_context_length": 4096,
    "rope.scaling.yarn_log_multiplier": 0.1,
    "leading_dense_block_count": 3,
    "expert_count": 256,
    "expert_used_count": 8,
    "expert_shared_count": 1,
    "expert_feed_forward_length": 2048,
    "expert_weights_scale": 2.5,
    "expert_weights_norm": True,
    "expert_gating_func": 2,
    "expert_group_count": 8,
    "expert_group_used_count": 4,
}
OLDER = {"attention.head_count_kv": 128, "attention.key_length": 192, "attention.value_length": 128}


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


def gguf_checkpoint(metadata):
    file = SimpleNamespace(tensors={"token_embd.weight": SimpleNamespace(shape=(129280, 7168))})
    values = {f"deepseek2.{key}": value for key, value in metadata.items()}
    fields = Fields(values, Path("m.gguf"), "deepseek2.")
    return Checkpoint("gguf", file, "deepseek2", "deepseek2", fields, "gguf", ())


def older():
    kept = {key: value for key, value in PUBLISHED.items() if not key.endswith("_mla")}
    return kept | OLDER


@pytest.mark.parametrize("metadata", [PUBLISHED, older()], ids=["split", "older"])
def test_both_formats_say_the_same(metadata):
    checkpoint = gguf_checkpoint(metadata)
    assert deepseek_v3.fits(checkpoint)
    assert not deepseek_v2.fits(checkpoint)
    gguf = deepseek_v3.read_config(checkpoint)
    published = deepseek_v3.read_config(_shape_only(deepseek_v3.SIZES["671B"]))
    assert gguf.latent.scale == pytest.approx(published.latent.scale)
    assert gguf.latent.scale == pytest.approx(192**-0.5 * (0.1 * math.log(40) + 1) ** 2)
    for name in ("rank", "nope_dim", "rope_dim", "value_dim", "q_rank", "row"):
        assert getattr(gguf.latent, name) == getattr(published.latent, name), name
    routing, theirs = gguf.experts.routing, published.experts.routing
    for name in (
        "num_experts",
        "top_k",
        "scores",
        "renormalize",
        "floor",
        "num_groups",
        "top_groups",
        "scale",
    ):
        assert getattr(routing, name) == getattr(theirs, name), name
    assert gguf.dense_layers == published.dense_layers
    assert gguf.rope.rot_dim == published.rope.rot_dim == 64


def test_without_a_word_on_scores_it_is_v2():
    checkpoint = gguf_checkpoint({k: v for k, v in PUBLISHED.items() if k != "expert_gating_func"})
    assert deepseek_v2.fits(checkpoint)
    assert not deepseek_v3.fits(checkpoint)
    assert deepseek_v2.read_config(checkpoint).experts.routing.group_best == 1


def apart(model, whole=families._tensors):
    """As newer converters have it: U transposed, and W, each by heads."""
    for name, tensor in whole(model):
        if "kv_b_proj" not in name:
            yield name, tensor
            continue
        config = model.config
        both = tensor.reshape(config.num_attention_heads, -1, config.kv_lora_rank)
        up, down = both.split([config.qk_nope_head_dim, config.v_head_dim], dim=1)
        yield name.replace("kv_b_proj", "k_b_proj"), up.transpose(1, 2).contiguous()
        yield name.replace("kv_b_proj", "v_b_proj"), down.contiguous()


def test_gguf_files_with_keys_and_values_apart(tmp_path, seed, rng, monkeypatch):
    monkeypatch.setattr(families, "_tensors", apart)
    reference = make(tiny("deepseek_v3"), seed)
    check(save_gguf(reference, tmp_path / "m.gguf"), reference, rng)
    types = {"attn_k_b": Type.Q8_0, "attn_v_b": Type.Q4_1}
    files = save_gguf(reference, tmp_path / "q.gguf", lambda name: types.get(name.split(".")[-2], Type.F32))
    attention = load_model(files).blocks[0].attention
    assert set(attention.keys.formats) == {"s8_d16"}
    assert set(attention.values.formats) == {"u4_dm16"}


def test_a_quantised_kv_b_is_read_as_floats(tmp_path, seed, rng):
    reference = make(tiny("deepseek_v2"), seed)
    files = save_gguf(reference, tmp_path / "m.gguf", lambda n: Type.Q8_0 if "attn_kv_b" in n else Type.F32)
    check(files, reference, rng, length=40)
    assert set(load_model(files).blocks[0].attention.keys.formats) == {"bf16"}


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_what_makes_keys_and_values_is_never_quantised(kind, tmp_path, seed):
    files = save_safetensors(make(tiny("deepseek_v3"), seed), tmp_path)
    attention = load_model(files, quantization=kind).blocks[1].attention
    assert set(attention.keys.formats) == set(attention.values.formats) == {"bf16"}
    assert attention.kv.weight.packed_NK.formats != ["bf16"]


@pytest.mark.parametrize(
    ("family", "changes", "error", "says"),
    [
        (deepseek_v3, {"kv_lora_rank": None}, ModelFileError, "kv_lora_rank is missing"),
        (deepseek_v3, {"qk_rope_head_dim": 15}, ModelFileError, "cannot rotate 15 of 15 elements"),
        (deepseek_v3, {"qk_nope_head_dim": 2**14, "num_attention_heads": 64}, ModelFileError, "are too many"),
        (deepseek_v3, {"topk_group": 5}, ModelFileError, "num_experts_per_tok does not fit: top_groups"),
        (
            deepseek_v2,
            {"topk_method": "noaux_tc"},
            UnsupportedModel,
            "topk_method 'noaux_tc' is not supported",
        ),
        (deepseek_v32, {"index_topk": None}, ModelFileError, "index_topk is missing"),
        (deepseek_v32, {"index_head_dim": 8}, ModelFileError, "index_head_dim must be at least the 16"),
        (deepseek_v32, {"q_lora_rank": None}, UnsupportedModel, "without q_lora_rank"),
        (longcat_flash, {"num_layers": None}, ModelFileError, "num_layers is missing"),
        (longcat_flash, {"zero_expert_type": "copy"}, ModelFileError, "must be identity, not 'copy'"),
        (longcat_flash, {"q_lora_rank": None}, ModelFileError, "q_lora_rank is missing"),
        (longcat_flash, {"moe_topk": 10}, ModelFileError, "top_k must be 1 to 9"),
    ],
)
def test_wrong_configurations_are_named(family, changes, error, says):
    with pytest.raises(error, match=says):
        family.read_config(_shape_only({**family.TINY, **changes}))


def test_a_key_that_turns_as_a_whole_is_named():
    with pytest.raises(ModelFileError, match=r"key_length_mla must be above the 64"):
        deepseek_v3.read_config(gguf_checkpoint({**PUBLISHED, "attention.key_length_mla": 64}))


def test_scales_of_longcat_can_be_switched_off():
    config = {**longcat_flash.TINY, "mla_scale_q_lora": False, "mla_scale_kv_lora": False}
    latent = longcat_flash.read_config(_shape_only(config)).latent
    assert (latent.scale, latent.latent_scale) == (pytest.approx(32**-0.5), 1.0)
