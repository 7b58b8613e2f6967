"""Experts in MXFP4 (OCP Microscaling Formats 1.0), everything else in floats, as OpenAI publishes GPT-OSS.

`experts.<name>_blocks` [experts, rows, columns / 32, 16] holds two codes of E2M1 in a byte, the first in the
low nibble, and `experts.<name>_scales` [experts, rows, columns / 32] their exponents (E8M0).
"""

from __future__ import annotations

from tenon import ops
from tenon.layers.packed import PackedScheme
from tenon.layers.weights import Stacked, Weights


class MXFP4Scheme(PackedScheme):
    def load_experts(
        self,
        weights: Weights,
        names: list[str],
        rows: list[int],
        columns: int,
        num_experts: int,
        fused: str,
        stacked: Stacked | None = None,
    ) -> ops.PackedLinear:
        how = (stacked or Stacked())._replace(stored="mxfp4")
        return super().load_experts(weights, names, rows, columns, num_experts, fused, how)


SCHEME = MXFP4Scheme()
