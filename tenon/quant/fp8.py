"""Matrices in FP8 (E4M3, Micikevicius et al. 2022) with a scale for each block of rows and columns, as
DeepSeek-V3 and R1 are published (DeepSeek-AI 2024, section 3.3), and Qwen3's -FP8 files; or with one for each
matrix, as AutoFP8 writes them, and transformers without blocks.

`<layer>.weight` [N, K] has the numbers, `<layer>.weight_scale_inv` [N / 128, K / 128], rounded up, what those
of each block are to be multiplied with; the only one of a matrix is called `<layer>.weight_scale` too. What
the file has in floats (norms, embedding, head, routers) is read as such. Activations stay what they are for
weights in floats: to quantise them, as files say they were meant to be ("dynamic", or "static" with scales of
their own), is how the GPUs they were made for save time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenon.errors import UnsupportedModel
from tenon.layers.packed import PackedScheme
from tenon.layers.weights import FP8Scales

PANEL, STEP = 16, 32  # blocks are multiples of what kernels read at a time
_BLOCK = f"[rows, columns], multiples of {PANEL} and {STEP}"
# Of activations, and of what the cache holds.
IGNORED = ("*.input_scale", "*.activation_scale", "*.q_scale", "*.k_scale", "*.v_scale", "*.kv_scale")


class FP8Scheme(PackedScheme):
    def configured(self, settings: Mapping[str, Any]) -> FP8Scheme:
        block = settings.get("weight_block_size")
        schemes = ("dynamic", "static") if block is None else ("dynamic",)
        for name, wanted in (("fmt", ("e4m3",)), ("activation_scheme", schemes)):
            if settings.get(name, wanted[0]) not in wanted:
                raise unsupported(name, " or ".join(map(repr, wanted)), settings[name])
        if block is None:
            return FP8Scheme(fp8=FP8Scales(0, 0, ("_scale", "_scale_inv")), ignored=IGNORED)
        return FP8Scheme(fp8=FP8Scales(*read_block("weight_block_size", block)), ignored=IGNORED)


def read_block(name: str, block: Any) -> tuple[int, int]:
    """Rows and columns of blocks. Raises UnsupportedModel for those that kernels cannot read."""
    if not isinstance(block, list) or len(block) != 2 or not all(map(_is_whole, block, (PANEL, STEP))):
        raise unsupported(name, _BLOCK, block)
    return block[0], block[1]


def _is_whole(size: Any, of: int) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and 0 < size <= 1 << 20 and size % of == 0


def unsupported(name: str, wanted: str, got: Any) -> UnsupportedModel:
    return UnsupportedModel(
        f"quantization_config: FP8 is read with {name} {wanted}, not {repr(got)[:100]}: use the model's "
        "files in bf16 (--quantization int8 makes them as small), or a GGUF of it"
    )


SCHEME = FP8Scheme()
